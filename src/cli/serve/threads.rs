//! How many threads compute, decided before the first of them exists.
//!
//! The engine's pools read their size once, and wait by spinning. On small models more threads gain little on an idle
//! machine and lose a factor of forty on a busy one, so those get one thread, and the engine then keeps to one core; larger
//! models get all cores.

use std::num::NonZeroUsize;
use std::path::Path;

use brevity::family::{MANIFEST, Manifest, Source, size_on_disk};

use crate::cli::set_threads;

/// Bytes of weights up to which a model counts as small: about 60 million parameters in 32 bits.
const SMALL: u64 = 256 << 20;

/// Settles the size of the pools.
pub fn settle(asked: Option<NonZeroUsize>, family: &Source) {
    let is_set = std::env::var_os("RAYON_NUM_THREADS").is_some();
    let automatic = (!is_set && is_known_small(family)).then_some(NonZeroUsize::MIN);
    set_threads(asked.or(automatic));
}

/// Whether the family's base is known to be small; that of a family on the hub is not known yet.
fn is_known_small(family: &Source) -> bool {
    match family {
        Source::Folder(folder) => is_small(folder),
        Source::Hub(_) => false,
    }
}

fn is_small(family: &Path) -> bool {
    let base = Manifest::load(&family.join(MANIFEST)).ok().and_then(|manifest| {
        let base = manifest.base.path.as_deref()?;
        Some(manifest.resolve(base))
    });
    let bytes = size_on_disk(base.as_deref().unwrap_or(family));
    (1..=SMALL).contains(&bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_bundled_family_is_small_and_nothing_is_not() {
        let models = Path::new(env!("CARGO_MANIFEST_DIR")).join("models");
        assert!(is_small(&models.join("mini")));
        assert!(is_small(&models.join("mini/base")));
        assert!(!is_small(&models));
        assert!(!is_small(Path::new("organisation/name")));
        let folder = tempfile::tempdir().unwrap();
        let file = std::fs::File::create(folder.path().join("model.safetensors")).unwrap();
        file.set_len(SMALL + 1).unwrap();
        assert!(!is_small(folder.path()));
    }
}
