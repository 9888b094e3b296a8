//! A device's memory: how much is free, what running out looks like, and going on with less at a time.

use candle_core::Device;

use crate::{Error, Result};

/// What the driver and its libraries say when memory has run out.
const OUT_OF_MEMORY: [&str; 3] = ["OUT_OF_MEMORY", "out of memory", "ALLOC_FAILED"];

/// Bytes that are free on a device; `None` for the CPU, whose memory is shared with whatever else runs there.
///
/// # Errors
/// [`Error::Config`] when a GPU's driver does not answer.
pub fn free_memory(device: &Device) -> Result<Option<u64>> {
    match device {
        #[cfg(feature = "cuda")]
        Device::Cuda(device) => super::cuda::free_memory(device).map(Some),
        _ => Ok(None),
    }
}

/// Whether an error says that the device has no memory left for what was asked of it.
#[must_use]
pub fn is_out_of_memory(error: &Error) -> bool {
    let Error::Tensor(error) = error else {
        return false;
    };
    let said = error.to_string();
    OUT_OF_MEMORY.iter().any(|words| said.contains(words))
}

/// Runs `attempt` with `size`; each time the device runs out of memory, again with half of it, down to `least`.
///
/// `size` is left at what fitted, so that the next call does not run into the same wall; `warn` is told of every try
/// that failed. `what` names the size in messages, with its key. Other errors end the attempts.
///
/// # Errors
/// Those of `attempt`; [`Error::Config`] with advice when not even `least` fits.
pub fn shrinking<T>(
    what: &str,
    size: &mut usize,
    least: usize,
    mut attempt: impl FnMut(usize) -> Result<T>,
    mut warn: impl FnMut(&str),
) -> Result<T> {
    loop {
        let error = match attempt(*size) {
            Err(error) if is_out_of_memory(&error) => error,
            other => return other,
        };
        if *size <= least {
            return Err(Error::config(format!(
                "the device ran out of memory, and {what} cannot be less than {least}: take a larger device, shorter \
                 responses (`rollout.max_new_tokens`), an adapter (`tuning.mode = \"lora\"`) or bf16 ({error})"
            )));
        }
        let smaller = (*size / 2).max(least);
        warn(&format!("the device ran out of memory with {what} = {size}; going on with {smaller}"));
        *size = smaller;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn full() -> Error {
        candle_core::Error::Msg("DriverError(CUDA_ERROR_OUT_OF_MEMORY, \"out of memory\")".into()).into()
    }

    #[test]
    fn only_memory_errors_are_tried_again() {
        assert!(is_out_of_memory(&full()));
        assert!(!is_out_of_memory(&Error::config("out of memory")), "not said by a device");
        let mut tries = 0;
        let mut size = 64;
        let other = shrinking(
            "size",
            &mut size,
            1,
            |_| -> Result<()> {
                tries += 1;
                Err(candle_core::Error::Msg("shape".into()).into())
            },
            |_| (),
        );
        assert!(other.is_err() && tries == 1 && size == 64);
    }

    #[test]
    fn the_size_is_halved_until_it_fits_and_stays_there() {
        let (mut size, mut tried, mut warnings) = (100, Vec::new(), Vec::new());
        let fits = |tried: &mut Vec<usize>, size| {
            tried.push(size);
            if size > 30 { Err(full()) } else { Ok(size) }
        };
        let run = shrinking("tokens", &mut size, 10, |s| fits(&mut tried, s), |w| warnings.push(w.to_owned()));
        assert_eq!((run.unwrap(), size), (25, 25));
        assert_eq!(tried, [100, 50, 25]);
        assert!(warnings[0].contains("tokens = 100; going on with 50"), "{warnings:?}");
        let error = shrinking("tokens", &mut size, 10, |_| -> Result<()> { Err(full()) }, |_| ()).unwrap_err();
        assert_eq!(size, 10);
        assert!(error.to_string().contains("tokens cannot be less than 10"), "{error}");
    }
}
