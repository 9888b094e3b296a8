//! `serve tiers fold`: a family whose adapters are checkpoints.

use std::path::PathBuf;
use std::time::Instant;

use brevity::family::{self, Folding, size_on_disk};
use brevity_training::model::Folded;
use brevity_training::trainer;
use clap::Args;

use super::Family;
use crate::cli::progress::{self, Counting, Fetching};
use crate::cli::{Result, interrupt, place};

/// Share of an adapter's change that may be lost before a warning.
const MUCH: f64 = 0.05;

/// Write a family whose adapters are folded into the weights: every tier a checkpoint of its own
///
/// On a GPU the engine records the steps of a checkpoint and plays them back; those of a base with an adapter it starts
/// kernel by kernel. Other programs load a checkpoint as any model. It takes the memory and the disk of a whole model for
/// every tier. The weights keep their format: in bf16 the sums are rounded at random, up or down, so that changes too small
/// for their last bit arrive in the mean. Names, efforts and budgets stay; cards of the folded tiers do not, measure them
/// with `serve eval --write-cards`.
#[derive(Debug, Args)]
pub struct Arguments {
    /// Tiers to fold; the others are listed as they are [default: all adapters]
    #[arg(value_name = "TIER")]
    tiers: Vec<String>,

    /// Folder of the new family; the old one is not changed
    #[arg(long, value_name = "FOLDER")]
    out: PathBuf,
}

/// Folds the tiers.
///
/// # Errors
/// When the folder exists or cannot be written, a tier is unknown, broken or no adapter, or somebody asks to stop.
pub fn run(family: &Family<'_>, arguments: &Arguments) -> Result<()> {
    let opened = family.open()?;
    let parent = arguments.out.parent().filter(|parent| !parent.as_os_str().is_empty());
    if let Some(parent) = parent {
        place::writable(parent, "--out")?;
    }
    let count = match arguments.tiers.len() {
        0 => opened.manifest.tiers.iter().filter(|tier| tier.adapter.is_some()).count(),
        count => count,
    };
    if let Some(base) = &opened.manifest.base.path {
        let bytes = count as u64 * size_on_disk(&opened.manifest.resolve(base));
        place::has_room(&[(parent.unwrap_or(std::path::Path::new(".")), "--out", bytes)])?;
    }
    let mut fetching = Fetching::default();
    let hub = (&family.hub, &mut fetching as &mut dyn family::Downloads);
    let manifest = family::fold(&opened, &arguments.tiers, &arguments.out, hub, &mut Shown::default())?;
    let name = &manifest.name;
    let out = arguments.out.display();
    progress::say(&format!("{name} was written to `{out}`; serve it with `serve --family {out}`"));
    Ok(())
}

/// A bar for each tier, and a line when it is whole.
#[derive(Default)]
struct Shown {
    counting: Option<(Counting, Instant)>,
}

impl Folding for Shown {
    fn begin(&mut self, tier: &str, bytes: u64) {
        self.counting = Some((Counting::new(tier, bytes), Instant::now()));
    }

    fn done(&mut self, bytes: u64) -> bool {
        if let Some((counting, _)) = &mut self.counting {
            counting.add(bytes);
        }
        !interrupt::requested()
    }

    fn end(&mut self, tier: &str, folded: &Folded) {
        let Some((counting, began)) = self.counting.take() else { return };
        let bytes = trainer::bytes(counting.finish());
        let Folded { kept, noise } = folded;
        progress::say(&format!(
            "{tier}: {bytes} in {:.0} s; {:.1} % of the adapter's change is kept, beside rounding of {:.1} % of its size",
            began.elapsed().as_secs_f64(),
            kept * 100.0,
            noise * 100.0
        ));
        if *kept < 1.0 - MUCH {
            progress::say(&format!(
                "warning: the format of the base is too coarse for what {tier} has learned; serve the adapter instead"
            ));
        }
    }
}
