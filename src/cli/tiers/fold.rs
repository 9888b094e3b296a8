//! `serve tiers fold`: a family whose adapters are checkpoints.
//!
//! What may be folded is found out and its room on the disk asked for before anything is written; what is shown meanwhile is
//! decided here, all else in the family's own room.

use std::path::{Path, PathBuf};
use std::time::Instant;

use brevity::family::{Fold, Folding};
use brevity_training::{Error, trainer};
use clap::Args;

use super::Family;
use crate::cli::progress::{self, Counting, Fetching};
use crate::cli::{Failure, Result, command, interrupt, place};

/// Write a family whose adapters are checkpoints: each one's change added to a copy of the base's weights
///
/// On a GPU the engine records decoding steps only while no adapter is in the batch, and otherwise starts them kernel by
/// kernel. Other programs load a checkpoint as any model. The price is the memory and the disk of a whole model for every
/// tier. The weights keep their format: in bf16 the sums are rounded at random, up or down, so that changes too small for the
/// last bit arrive in the mean. The base, and tiers that are not folded, stay where they are, and the new family refers to them.
/// Names, efforts and budgets stay; cards of the folded tiers do not, measure them with `serve eval --write-cards`.
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
    let Arguments { tiers, out } = arguments;
    let shown = out.display();
    if out.exists() {
        return Err(Failure::from(Error::config(format!("`{shown}` exists"))).hint("name another folder with --out"));
    }
    let fold = Fold::new(&family.open()?, tiers, &family.hub, &mut Fetching::default())?;
    let parent = out.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
    place::writable(parent, "--out")?;
    place::has_room(&[(parent, "--out", fold.bytes())])?;
    let manifest = fold.write(out, &command::typed(), &mut Shown::default()).map_err(|error| match error {
        Error::Interrupted => Failure::interrupted("interrupted; nothing was written"),
        error => error.into(),
    })?;
    progress::say(&format!(
        "{} was written to `{shown}`; it needs the base of `{}`. Serve it with `serve --family {shown}`",
        manifest.name, family.source
    ));
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

    fn end(&mut self, tier: &str, rounding: f64) {
        let Some((counting, began)) = self.counting.take() else { return };
        let (bytes, took) = (trainer::bytes(counting.finish()), began.elapsed().as_secs_f64());
        progress::say(&format!(
            "{tier}: {bytes} in {took:.0} s; the rounding is {:.1} % of the adapter's change",
            rounding * 100.0
        ));
        if rounding > 1.0 {
            progress::say(&format!(
                "warning: the rounding of {tier} is larger than its change; compare it with the adapter (`serve eval`) first"
            ));
        }
    }
}
