//! Several tiers at a time: each device trains one after the other, and takes the next alpha when it has finished one.

use std::sync::{Mutex, PoisonError};
use std::thread;

use brevity_training::compute::DeviceName;
use brevity_training::recipe::Recipe;

use crate::cli::{Failure, Result, progress};

/// The devices that tiers are trained on, at least one.
pub struct Devices(Vec<DeviceName>);

impl Devices {
    /// Those that were listed, or the recipe's own.
    ///
    /// # Errors
    /// When a GPU is listed twice: two runs would plan with the same memory.
    pub fn new(listed: &[DeviceName], recipe: &Recipe) -> Result<Self> {
        if listed.is_empty() {
            return Ok(Self(vec![recipe.compute.device]));
        }
        for (index, device) in listed.iter().enumerate() {
            if *device != DeviceName::Cpu && listed[..index].contains(device) {
                return Err(Failure::usage(format!("--devices lists {device} twice"))
                    .hint("list each GPU once; tiers without a device of their own wait for one"));
            }
        }
        Ok(Self(listed.to_vec()))
    }

    /// The recipe as it is on each device.
    ///
    /// # Errors
    /// When it is none that the device could run, such as bf16 on the CPU.
    pub fn recipes(&self, recipe: &Recipe) -> Result<Vec<Recipe>> {
        let on = |&device: &DeviceName| {
            let mut recipe = recipe.clone();
            recipe.compute.device = device;
            recipe.validate()?;
            Ok(recipe)
        };
        self.0.iter().map(on).collect()
    }
}

/// Calls `train` with every alpha, on as many threads as there are recipes, each with its own.
///
/// # Errors
/// The first of `train`. Its recipe's device takes no further alpha; the others go on, and their later failures are said.
pub fn spread<F>(recipes: &[Recipe], alphas: Vec<f64>, train: F) -> Result<()>
where
    F: Fn(&Recipe, f64) -> Result<()> + Sync,
{
    let waiting = Mutex::new(alphas.into_iter());
    let first = Mutex::new(None::<Failure>);
    thread::scope(|scope| {
        for recipe in recipes {
            let (waiting, first, train) = (&waiting, &first, &train);
            scope.spawn(move || {
                loop {
                    // Not in the condition of a `while`: the lock would be held for as long as the tier is trained.
                    let next = waiting.lock().unwrap_or_else(PoisonError::into_inner).next();
                    let Some(alpha) = next else { return };
                    if let Err(failure) = train(recipe, alpha) {
                        let mut first = first.lock().unwrap_or_else(PoisonError::into_inner);
                        match &*first {
                            None => *first = Some(failure),
                            Some(_) => progress::say(&failure.to_string()),
                        }
                        return;
                    }
                }
            });
        }
    });
    first.into_inner().unwrap_or_else(PoisonError::into_inner).map_or(Ok(()), Err)
}

#[cfg(test)]
mod tests {
    use std::sync::Barrier;

    use super::*;

    fn recipe() -> Recipe {
        Recipe::parse("name = \"t\"\nstage = \"rl\"\nbase = \"b\"\n[data]\nsource = \"mini\"\n", &[]).unwrap()
    }

    #[test]
    fn every_device_takes_the_next_alpha() {
        let recipes = Devices(vec![DeviceName::Cpu, DeviceName::Cuda(1)]).recipes(&recipe()).unwrap();
        let (both, trained) = (Barrier::new(2), Mutex::new(Vec::new()));
        spread(&recipes, vec![0.1, 0.2, 0.3, 0.4], |recipe, alpha| {
            // Passed only when two train at the same time.
            both.wait();
            trained.lock().unwrap().push((recipe.compute.device, alpha));
            Ok(())
        })
        .unwrap();
        let mut trained = trained.into_inner().unwrap();
        trained.sort_by(|left, right| left.1.total_cmp(&right.1));
        assert_eq!(trained.iter().map(|(_, alpha)| *alpha).collect::<Vec<_>>(), [0.1, 0.2, 0.3, 0.4]);
        assert_eq!(trained.iter().filter(|(device, _)| *device == DeviceName::Cpu).count(), 2);
    }

    #[test]
    fn a_device_that_fails_leaves_the_rest_to_the_others() {
        let recipes = Devices(vec![DeviceName::Cuda(0), DeviceName::Cuda(1)]).recipes(&recipe()).unwrap();
        let (both, trained) = (Barrier::new(2), Mutex::new(Vec::new()));
        let failure = spread(&recipes, vec![0.1, 0.2, 0.3, 0.4], |recipe, alpha| {
            if recipe.compute.device == DeviceName::Cuda(0) {
                both.wait();
                return Err(Failure::usage(format!("no memory for {alpha}")));
            }
            let mut trained = trained.lock().unwrap();
            if trained.is_empty() {
                // Until the other device has an alpha too.
                both.wait();
            }
            trained.push(alpha);
            Ok(())
        });
        assert!(failure.unwrap_err().to_string().contains("no memory"));
        assert_eq!(trained.into_inner().unwrap().len(), 3);
    }

    #[test]
    fn a_gpu_is_listed_once_and_the_processor_as_often_as_wanted() {
        let twice = [DeviceName::Cuda(1), DeviceName::Cpu, DeviceName::Cuda(1)];
        let failure = Devices::new(&twice, &recipe()).err().unwrap().to_string();
        assert!(failure.contains("cuda:1 twice"), "{failure}");
        assert_eq!(Devices::new(&[DeviceName::Cpu; 2], &recipe()).unwrap().0.len(), 2);
        assert_eq!(Devices::new(&[], &recipe()).unwrap().0, [DeviceName::Cpu]);
    }
}
