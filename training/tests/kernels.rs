//! The kernels' source, run on a processor: what can be known of it without a GPU. Where there is no C++ compiler with the
//! barriers of C++20, this says so and passes.

use std::path::{Path, PathBuf};
use std::process::Command;

/// The program `name` of `kernels/`, or what is missing to build it.
fn build(folder: &Path, name: &str, definitions: &[String]) -> Result<PathBuf, String> {
    let compile = |source: &Path, to: &Path, more: &[String]| {
        let mut command = Command::new(std::env::var_os("CXX").unwrap_or_else(|| "c++".into()));
        command.args(["-std=c++20", "-O1", "-w", "-pthread"]).args(more).arg(source).arg("-o").arg(to);
        command.output().map_err(|error| error.to_string())
    };
    let (probe, program) = (folder.join("probe.cpp"), folder.join(name));
    let text = "#include <barrier>\nint main() { std::barrier<> all(1); }\n";
    std::fs::write(&probe, text).map_err(|error| error.to_string())?;
    let probed = compile(&probe, &folder.join("probe"), &[])?;
    if !probed.status.success() {
        return Err("the C++ compiler has no <barrier>".to_owned());
    }
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/kernels").join(name).with_extension("cpp");
    let built = compile(&source, &program, definitions)?;
    assert!(built.status.success(), "{}", String::from_utf8_lossy(&built.stderr));
    Ok(program)
}

/// The numbers that the program prints; none where it prints something else.
fn run(program: &Path, arguments: &str) -> Vec<f64> {
    let printed = Command::new(program).args(arguments.split(' ')).output().map(|output| output.stdout);
    let printed = String::from_utf8(printed.unwrap_or_default()).unwrap_or_default();
    printed.split_whitespace().map_while(|number| number.parse().ok()).collect()
}

#[test]
fn attention_of_new_tokens_is_that_of_plain_loops() {
    let folder = tempfile::tempdir().unwrap();
    // Heads; tokens there is room for, slices, positions: short sequences leave slices empty, the longest fills the last.
    let cases: [((usize, usize), &[&str]); 3] = [
        ((128, 6), &["2 600 3 0 599 31 200", "2 100 1 0 99 31"]),
        ((64, 1), &["3 520 2 259 260 519"]),
        ((32, 8), &["1 300 4 74 75 299"]),
    ];
    for ((head_dim, group), cases) in cases {
        let definitions = [format!("-DHEAD_DIM={head_dim}"), format!("-DGROUP={group}")];
        let program = match build(folder.path(), "decode", &definitions) {
            Ok(program) => program,
            Err(why) => return println!("skipped: {why}"),
        };
        for case in cases {
            let worst = run(&program, case);
            // Results of about 0.3 in half precision, whose last bit there is 2^-10.
            assert!(worst[0] < 4e-3, "heads of {head_dim}, {group} a key head, `{case}`: {worst:?}");
        }
    }
}

#[test]
fn norms_are_those_of_plain_loops() {
    let folder = tempfile::tempdir().unwrap();
    let program = match build(folder.path(), "norms", &[]) {
        Ok(program) => program,
        Err(why) => return println!("skipped: {why}"),
    };
    // Rows, their width, and the threads of each: hidden states, and heads, which have fewer eights than a warp has threads.
    for case in ["3 1544 256", "5 128 32", "4 64 32", "2 520 96"] {
        let worst = run(&program, case);
        // Values of up to about 8, whose last bit in half precision is 2^-5.
        assert!(worst[0] < 1e-5 && worst[1] < 0.04, "`{case}`: {worst:?}");
    }
}
