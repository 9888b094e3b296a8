//! Compiles FlashAttention-2's kernels into a static library; without the feature `kernels` it does nothing.
//!
//! Their source is not part of this crate: FLASH_ATTN_SOURCE names a folder with the source distribution of PyPI's
//! flash-attn 2.8.3.post2 (BSD licence), which `scripts/cuda-home` downloads. Needs nvcc, from CUDA_HOME or PATH, and
//! takes minutes and up to 6 GB of memory for each of two compilers at a time. FLASH_ATTN_GENCODE holds other targets
//! than the default (machine code for Ampere and Hopper, and PTX for later GPUs) as `-gencode` options.

use std::env;
use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};
use std::sync::Mutex;
use std::thread;

/// One file each for a pass and a head size.
const KERNELS: [&str; 4] = [
    "flash_bwd_hdim128_bf16_causal_sm80",
    "flash_bwd_hdim64_bf16_causal_sm80",
    "flash_fwd_hdim128_bf16_causal_sm80",
    "flash_fwd_hdim64_bf16_causal_sm80",
];

const GENCODE: &str = "-gencode=arch=compute_80,code=sm_80 -gencode=arch=compute_90,code=[sm_90,compute_90]";

/// Those of flash-attn's own build; then what is left out, and a namespace in which no other copy of the kernels is.
const OPTIONS: [&str; 16] = [
    "-O3",
    "-std=c++17",
    "-Xcompiler=-fPIC",
    "--expt-relaxed-constexpr",
    "--expt-extended-lambda",
    "--use_fast_math",
    "-U__CUDA_NO_HALF_OPERATORS__",
    "-U__CUDA_NO_HALF_CONVERSIONS__",
    "-U__CUDA_NO_HALF2_OPERATORS__",
    "-U__CUDA_NO_BFLOAT16_CONVERSIONS__",
    "-DFLASHATTENTION_DISABLE_DROPOUT",
    "-DFLASHATTENTION_DISABLE_ALIBI",
    "-DFLASHATTENTION_DISABLE_SOFTCAP",
    "-DFLASHATTENTION_DISABLE_LOCAL",
    "-DFLASHATTENTION_DISABLE_UNEVEN_K",
    "-DFLASH_NAMESPACE=brevity_flash",
];

/// Compilers at a time.
const WORKERS: usize = 2;

fn main() -> ExitCode {
    tell("rerun-if-changed=build.rs");
    tell("rerun-if-changed=src/shim.cu");
    tell("rerun-if-changed=src/stubs");
    for name in ["FLASH_ATTN_SOURCE", "FLASH_ATTN_GENCODE", "CUDA_HOME", "CUDA_PATH"] {
        tell(&format!("rerun-if-env-changed={name}"));
    }
    if env::var_os("CARGO_FEATURE_KERNELS").is_none() {
        return ExitCode::SUCCESS;
    }
    match build() {
        Ok(()) => ExitCode::SUCCESS,
        Err(message) => {
            eprintln!("brevity-flash: {message}");
            ExitCode::FAILURE
        }
    }
}

/// One line for cargo.
fn tell(line: &str) {
    println!("cargo:{line}");
}

fn build() -> Result<(), String> {
    let source = source()?;
    let cuda = cuda()?;
    let nvcc = Nvcc { program: cuda.join("bin/nvcc"), source: source.clone() };
    let out = PathBuf::from(env::var_os("OUT_DIR").ok_or("OUT_DIR is not set: let cargo run this")?);

    let kernels = KERNELS.map(|name| source.join("csrc/flash_attn/src").join(name).with_extension("cu"));
    let sources: Vec<PathBuf> = kernels.into_iter().chain([PathBuf::from("src/shim.cu")]).collect();
    let objects: Vec<PathBuf> =
        sources.iter().map(|file| out.join(file.file_name().unwrap_or_default()).with_extension("o")).collect();

    let waiting = Mutex::new(sources.iter().zip(&objects).rev().collect::<Vec<_>>());
    let worker = || -> Result<(), String> {
        loop {
            let next = waiting.lock().map_err(|_| "another compiler's thread panicked")?.pop();
            let Some((file, object)) = next else { return Ok(()) };
            if let Err(message) = nvcc.compile(file, object) {
                waiting.lock().map_err(|_| "another compiler's thread panicked")?.clear();
                return Err(message);
            }
        }
    };
    thread::scope(|scope| {
        let workers: Vec<_> = (0..WORKERS).map(|_| scope.spawn(worker)).collect();
        workers.into_iter().try_for_each(|worker| worker.join().map_err(|_| "a compiler's thread panicked")?)
    })?;

    let library = out.join("libbrevity_flash.a");
    // An archive that is there already would be added to.
    if library.exists() {
        std::fs::remove_file(&library).map_err(|error| format!("cannot remove `{}`: {error}", library.display()))?;
    }
    nvcc.archive(&objects, &library)?;

    tell(&format!("rustc-link-search=native={}", out.display()));
    tell("rustc-link-lib=static=brevity_flash");
    tell(&format!("rustc-link-search=native={}", runtime(&cuda)?.display()));
    tell("rustc-link-lib=static:-bundle=cudart_static");
    for system in ["stdc++", "dl", "rt", "pthread"] {
        tell(&format!("rustc-link-lib={system}"));
    }
    Ok(())
}

/// The folder of flash-attn's source.
fn source() -> Result<PathBuf, String> {
    let advice = "`eval \"$(scripts/cuda-home FOLDER)\"` downloads it and sets the variable; or unpack the source \
                  distribution of flash-attn 2.8.3.post2 from PyPI and name its folder there";
    let Some(source) = env::var_os("FLASH_ATTN_SOURCE").map(PathBuf::from) else {
        return Err(format!(
            "the kernels are compiled from the folder in FLASH_ATTN_SOURCE, which is not set: {advice}"
        ));
    };
    tell(&format!("rerun-if-changed={}", source.join("csrc/flash_attn/src").display()));
    for needed in ["csrc/flash_attn/src/flash.h", "csrc/cutlass/include/cutlass/cutlass.h"] {
        if !source.join(needed).is_file() {
            let folder = source.display();
            return Err(format!("FLASH_ATTN_SOURCE is `{folder}`, in which there is no {needed}: {advice}"));
        }
    }
    Ok(source)
}

/// The folder with CUDA's `bin/nvcc`: that of CUDA_HOME or CUDA_PATH, or the one to which the PATH leads.
fn cuda() -> Result<PathBuf, String> {
    let named = ["CUDA_HOME", "CUDA_PATH"].into_iter().find_map(env::var_os).map(PathBuf::from);
    let found = || {
        let path = env::var_os("PATH").unwrap_or_default();
        let bin = env::split_paths(&path).find(|folder| folder.join("nvcc").is_file())?;
        bin.canonicalize().ok()?.parent().map(Path::to_path_buf)
    };
    named.or_else(found).filter(|folder| folder.join("bin/nvcc").is_file()).ok_or_else(|| {
        "no bin/nvcc in the folder that CUDA_HOME names, nor nvcc on the PATH: install CUDA's toolkit (13.0 was tried) \
         and set CUDA_HOME, or `eval \"$(scripts/cuda-home FOLDER)\"`"
            .to_owned()
    })
}

/// The folder with the static CUDA runtime, which loads the driver only when it is called.
fn runtime(cuda: &Path) -> Result<PathBuf, String> {
    let folders =
        ["lib64", "lib", "targets/x86_64-linux/lib", "targets/sbsa-linux/lib"].map(|folder| cuda.join(folder));
    folders.into_iter().find(|folder| folder.join("libcudart_static.a").is_file()).ok_or_else(|| {
        format!("no libcudart_static.a under `{}`: is CUDA_HOME the folder of a whole toolkit?", cuda.display())
    })
}

/// The compiler, and where the headers are.
struct Nvcc {
    program: PathBuf,
    source: PathBuf,
}

impl Nvcc {
    fn compile(&self, file: &Path, object: &Path) -> Result<(), String> {
        let targets = env::var("FLASH_ATTN_GENCODE").unwrap_or_else(|_| GENCODE.to_owned());
        let mut arguments: Vec<OsString> = vec!["-c".into(), file.into(), "-o".into(), object.into()];
        arguments.extend(targets.split_whitespace().map(OsString::from));
        arguments.extend(OPTIONS.map(OsString::from));
        let includes = ["csrc/flash_attn/src", "csrc/cutlass/include"].map(|folder| self.source.join(folder));
        for folder in [PathBuf::from("src/stubs")].iter().chain(&includes) {
            arguments.extend(["-I".into(), folder.into()]);
        }
        self.run(arguments)
    }

    fn archive(&self, objects: &[PathBuf], library: &Path) -> Result<(), String> {
        let options = ["--lib".into(), "-o".into(), library.into()];
        self.run(options.into_iter().chain(objects.iter().map(OsString::from)).collect())
    }

    fn run(&self, arguments: Vec<OsString>) -> Result<(), String> {
        let mut command = Command::new(&self.program);
        // What is set for other builds, as more targets, would double the time and the size.
        command.args(arguments).env_remove("NVCC_APPEND_FLAGS").env_remove("NVCC_PREPEND_FLAGS");
        let output = command.output().map_err(|error| format!("cannot run `{}`: {error}", self.program.display()))?;
        if output.status.success() {
            return Ok(());
        }
        let said = String::from_utf8_lossy(&output.stderr);
        Err(format!("{command:?} failed ({}); each compiler needs up to 6 GB of memory\n{said}", output.status))
    }
}
