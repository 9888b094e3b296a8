//! `serve tiers`: look at a family and change it.

mod add;
mod effort;
mod fold;
mod list;
mod merge;
mod remove;
mod show;
mod verify;

use brevity::family::{Hub, MANIFEST, Manifest, Opened, Source};
use brevity_training::Error;
use clap::{Args, Subcommand};

use super::progress::{self, Fetching};
use super::{Failure, Result};

const EXAMPLES: &str = "\
Examples:
  serve tiers list
      the tiers of the bundled family, their efforts and what was measured of them
  serve tiers merge alpha-0.05 alpha-0.1 --weight 0.5 --name alpha-0.075
      a tier half way between two, without training
  serve tiers fold --out models/folded
      the same family as checkpoints, for a GPU with memory to spare and for other engines
  serve tiers add runs/mine/checkpoint --name mine --alpha 0.3
      an adapter or a checkpoint that was trained elsewhere
  serve tiers set-effort low alpha-0.2
      requests with low effort go to this tier
  serve tiers verify --family organisation/name
      fetch a family from the Hugging Face hub and check it";

/// List, check, add, merge, fold and remove the tiers of a family, and choose which effort leads to which tier
///
/// Changes are written to family.toml at once and as a whole. Weights are never changed.
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES, subcommand_required = true, arg_required_else_help = true)]
pub struct Arguments {
    /// Folder of the family, or `organisation/name[@revision]` on the Hugging Face hub
    // An id of its own: the server has an option of this name too, and a global one would be taken for it.
    #[arg(
        id = "family_of_tiers",
        long = "family",
        global = true,
        env = "BREVITY_FAMILY",
        hide_env_values = true,
        value_name = "FAMILY",
        default_value = "models/mini"
    )]
    family: Source,

    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Show every tier: alpha, efforts, accuracy, tokens, kind and size
    List,
    Show(show::Arguments),
    /// Check files, hashes, shapes and tokenizers of every tier; exit with 1 when something is wrong
    ///
    /// Fetches what is on the hub, and asks the servers of upstream tiers for one token each. A card that was measured on
    /// other weights counts as a fault.
    Verify,
    Add(add::Arguments),
    Remove(remove::Arguments),
    SetDefault(effort::Default),
    SetEffort(effort::Effort),
    Merge(merge::Arguments),
    Fold(fold::Arguments),
}

/// Runs `serve tiers`.
///
/// # Errors
/// When the family cannot be read or changed, something asked for does not exist, or something is wrong with a tier.
pub fn run(arguments: &Arguments) -> Result<()> {
    let family = Family { source: &arguments.family, hub: Hub::from_env() };
    match &arguments.command {
        Command::List => list::run(&family),
        Command::Show(arguments) => show::run(&family, arguments),
        Command::Verify => verify::run(&family),
        Command::Add(arguments) => add::run(&family, arguments),
        Command::Remove(arguments) => remove::run(&family, arguments),
        Command::SetDefault(arguments) => effort::set_default(&family, arguments),
        Command::SetEffort(arguments) => effort::set_effort(&family, arguments),
        Command::Merge(arguments) => merge::run(&family, arguments),
        Command::Fold(arguments) => fold::run(&family, arguments),
    }
}

/// The family of this command, and the hub that it or its tiers may be on.
struct Family<'a> {
    source: &'a Source,
    hub: Hub,
}

impl Family<'_> {
    /// Its manifest, wherever it is.
    fn open(&self) -> Result<Opened> {
        let opened = self.source.open(&self.hub, &mut Fetching::default());
        opened
            .map_err(|error| Failure::from(error).hint("name a family with --family, or train one with `serve train`"))
    }

    /// How the tiers of this family are measured, so that their cards can be compared.
    fn measuring(&self, manifest: &Manifest) -> String {
        let suite = manifest.tiers.iter().find_map(|tier| Some(tier.card.as_ref()?.dataset.as_str()));
        let suite = if suite.is_some_and(|suite| suite.starts_with("mini")) { "" } else { " --suite SUITE" };
        format!("serve eval --family {}{suite} --write-cards", self.source)
    }

    /// Its manifest for a change: a file on this machine, read now.
    fn editable(&self) -> Result<Manifest> {
        let opened = self.open()?;
        if opened.origin.is_some() || opened.is_single {
            let message = format!("`{}` has no {MANIFEST} on this machine that could be changed", self.source);
            return Err(
                Failure::from(Error::config(message)).hint("copy the family, or write a manifest beside the model")
            );
        }
        Ok(opened.manifest)
    }

    /// Changes the manifest: reads it again, so that what others wrote in the meantime stays, and writes it as a whole.
    fn change<T>(&self, change: impl FnOnce(&mut Manifest) -> Result<T>) -> Result<T> {
        // The family may be one that cannot be changed; only then is there a folder to lock.
        let _lock = Manifest::lock(self.editable()?.path())?;
        let mut manifest = self.editable()?;
        let before = manifest.clone();
        let result = change(&mut manifest)?;
        manifest.save()?;
        for (effort, tier) in manifest.effort.iter().filter(|(effort, tier)| before.effort.get(effort) != Some(tier)) {
            progress::say(&format!("effort {effort} leads to {tier} now"));
        }
        for tier in manifest.tiers.iter().filter(|tier| before.tier(&tier.name).is_err()) {
            unreached(&manifest, &tier.name).iter().for_each(|told| progress::say(told));
        }
        Ok(result)
    }
}

/// What to say of a tier that no effort leads to.
pub fn unreached(manifest: &Manifest, tier: &str) -> Option<String> {
    let is_reached = manifest.effort.values().any(|reached| reached == tier);
    (!is_reached).then(|| format!("no effort leads to {tier}; `serve tiers set-effort EFFORT {tier}` changes that"))
}

/// The efforts that lead to a tier, the default one marked.
fn efforts(manifest: &Manifest, tier: &str) -> String {
    let leading = manifest.effort.iter().filter(|(_, name)| *name == tier).map(|(effort, _)| *effort);
    let shown =
        leading.map(|effort| if effort == manifest.default_effort { format!("{effort}*") } else { effort.to_string() });
    shown.collect::<Vec<_>>().join(" ")
}
