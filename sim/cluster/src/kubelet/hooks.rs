//! Commands in containers: `exec`, probes of kind exec, the hooks after a container's start and before its end, and those
//! that a container runs in place of its image's program.

use std::time::Duration;

use k8s_openapi::api::core::v1::{Container, LifecycleHandler, Probe};
use program::{Context, ExecOutput, ExecTable, ExitCode, Main, program};

use super::pod::PodTask;
use super::probe;

/// How long a hook's HTTP request may take.
const HTTP_TIMEOUT: Duration = Duration::from_secs(30);

/// Runs a hook.
///
/// # Errors
/// Why it failed.
pub(super) async fn run(
    hook: &LifecycleHandler,
    container: &Container,
    pod: &PodTask,
    exec: &ExecTable,
) -> Result<(), String> {
    if let Some(sleep) = &hook.sleep {
        let pause = Duration::from_secs(u64::try_from(sleep.seconds).unwrap_or(0));
        pod.shared.parts.clock.sleep(pause).await;
    }
    if let Some(action) = &hook.exec {
        let argv = action.command.clone().unwrap_or_default();
        let output = command(pod, exec, argv.clone()).await;
        if output.code != ExitCode::SUCCESS {
            let told = output.output.trim_end();
            return Err(format!("command '{}' exited with {}: {told}", argv.join(" "), output.code.0));
        }
    }
    if hook.http_get.is_some() {
        let probe = Probe { http_get: hook.http_get.clone(), ..Probe::default() };
        return probe::ask(&probe, container, pod, exec, HTTP_TIMEOUT, &mut None).await;
    }
    Ok(())
}

/// Runs a command inside a container. Every image has `sleep`, `true` and `false`; everything else is the program's to
/// know.
pub(super) async fn command(pod: &PodTask, exec: &ExecTable, argv: Vec<String>) -> ExecOutput {
    let quiet = |code| ExecOutput { code: ExitCode(code), output: String::new() };
    match (builtin(&argv), exec.get()) {
        (Some(Builtin::Sleep(pause)), _) => {
            pod.shared.parts.clock.sleep(pause).await;
            quiet(0)
        }
        (Some(Builtin::Exit(code)), _) => quiet(code),
        (None, Some(exec)) => exec.exec(argv).await,
        (None, None) => {
            let program = argv.first().map_or("", String::as_str);
            let output = format!("exec: {program:?}: executable file not found in $PATH: unknown");
            ExecOutput { code: ExitCode(127), output }
        }
    }
}

/// What a container runs in place of its image's program: a command that every image has.
pub(super) fn entrypoint(container: &Container) -> Option<Main> {
    let command = container.command.as_ref().filter(|command| !command.is_empty())?;
    let argv: Vec<String> = command.iter().chain(container.args.iter().flatten()).cloned().collect();
    let builtin = builtin(&argv)?;
    Some(program(move |context: Context| async move {
        match builtin {
            Builtin::Sleep(pause) => {
                // As process 1 it hears no SIGTERM.
                context.clock.sleep(pause).await;
                ExitCode::SUCCESS
            }
            Builtin::Exit(code) => ExitCode(code),
        }
    }))
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum Builtin {
    Sleep(Duration),
    Exit(i32),
}

/// What `sleep 5`, `true`, `false` are, also behind `sh -c`.
fn builtin(argv: &[String]) -> Option<Builtin> {
    let words: Vec<&str> = match argv {
        [shell, flag, script] if shell.ends_with("sh") && flag == "-c" => script.split_whitespace().collect(),
        argv => argv.iter().map(String::as_str).collect(),
    };
    let (program, arguments) = words.split_first()?;
    match (program.rsplit('/').next()?, arguments) {
        ("sleep", [seconds]) => {
            let seconds = seconds.trim_end_matches('s').parse().ok()?;
            Duration::try_from_secs_f64(seconds).ok().map(Builtin::Sleep)
        }
        ("true", []) => Some(Builtin::Exit(0)),
        ("false", []) => Some(Builtin::Exit(1)),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_image_can_sleep() {
        let check = |argv: &[&str], expected: Option<Builtin>| {
            let argv: Vec<String> = argv.iter().map(|word| (*word).to_owned()).collect();
            assert_eq!(builtin(&argv), expected, "{argv:?}");
        };
        check(&["sleep", "5"], Some(Builtin::Sleep(Duration::from_secs(5))));
        check(&["/bin/sh", "-c", "sleep 0.5"], Some(Builtin::Sleep(Duration::from_millis(500))));
        check(&["/bin/false"], Some(Builtin::Exit(1)));
        check(&["nginx", "-s", "quit"], None);
        check(&["/bin/sh", "-c", "sleep 5 && nginx -s quit"], None);
        check(&[], None);
    }
}
