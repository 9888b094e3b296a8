//! Where the threads of a server with a small model run.

use std::collections::BTreeMap;

use crate::server::{Running, family};
use crate::support::Workspace;

/// How many threads of the server may run on which cores.
fn threads(server: &Running) -> BTreeMap<String, usize> {
    let mut threads = BTreeMap::new();
    for thread in std::fs::read_dir(format!("/proc/{}/task", server.id())).unwrap().flatten() {
        // A thread may end meanwhile.
        let status = std::fs::read_to_string(thread.path().join("status")).unwrap_or_default();
        let cores = status.lines().find_map(|line| line.strip_prefix("Cpus_allowed_list:"));
        *threads.entry(cores.unwrap_or_default().trim().to_owned()).or_default() += 1;
    }
    threads.remove("");
    threads
}

/// A server of the bundled family that has answered.
fn server(variables: &[(&str, &str)]) -> Running {
    let space = Workspace::new();
    let mut command = space.command(&["--family", &family(), "--port", "0", "--log", "warn"]);
    for name in ["RAYON_NUM_THREADS", "CANDLE_CPU_MASK", "CANDLE_CPU_AFFINITY"] {
        command.env_remove(name);
    }
    command.envs(variables.iter().copied());
    let server = Running::launch(command);
    let body = r#"{"model": "mini", "messages": [{"role": "user", "content": "What is 2 + 3?"}]}"#;
    let answer = server.ask("POST", crate::server::CHAT, &["content-type: application/json"], body);
    assert_eq!(answer.status, 200, "{}", answer.body);
    server
}

#[test]
fn an_engine_of_one_thread_has_one_core_and_the_server_all_of_them() {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let all = status.lines().find_map(|line| line.strip_prefix("Cpus_allowed_list:")).unwrap().trim().to_owned();
    if all.parse::<usize>().is_ok() {
        eprintln!("skipped: this test may use one core only");
        return;
    }
    let bound = threads(&server(&[]));
    let engine: Vec<usize> = bound.iter().filter(|(cores, _)| **cores != all).map(|(_, threads)| *threads).collect();
    assert!(bound.keys().all(|cores| *cores == all || cores.parse::<usize>().is_ok()), "{bound:?}");
    // Its own thread and the worker of its pool, on one core; the server's everywhere.
    assert!(engine.len() == 1 && engine[0] >= 2 && bound[&all] >= 2, "{bound:?}");

    let free = threads(&server(&[("BREVITY_THREADS", "2")]));
    assert_eq!(free.keys().collect::<Vec<_>>(), [&all], "threads that work beside each other are left alone");
}
