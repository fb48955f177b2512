//! `service`: installs and removes the Windows service, and is it.

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;
use std::thread::sleep;
use std::time::{Duration, Instant};

use anyhow::{Context, bail, ensure};
use windows_service::service::{
    Service, ServiceAccess, ServiceAction, ServiceActionType, ServiceErrorControl,
    ServiceFailureActions, ServiceFailureResetPeriod, ServiceInfo, ServiceStartType, ServiceState,
    ServiceType,
};
use windows_service::service_manager::{ServiceManager, ServiceManagerAccess};
use windows_service::{define_windows_service, service_dispatcher};

use super::args::ServiceVerb;
use super::exit::{Exit, ended};
use super::output::{errln, outln};
use super::run;
use crate::app::service_control::{self, NAME};
use crate::config;
use crate::telemetry::event_log;

/// Pause before a restart after a crash.
const RESTART_PAUSE: Duration = Duration::from_secs(2);
/// Crashes are forgotten after a day without one.
const CRASHES_COUNT_FOR: Duration = Duration::from_secs(86_400);
/// Time for the drain when the computer shuts down; Windows gives 10 s by itself.
const PRESHUTDOWN_TIMEOUT: Duration = Duration::from_secs(60);
/// Longest time for a stop before the removal.
const STOP_TIMEOUT: Duration = Duration::from_secs(120);

/// The configuration of the service that is run.
static CONFIG: OnceLock<PathBuf> = OnceLock::new();

/// Does one of the three.
pub(super) fn service(config: Option<&Path>, verb: ServiceVerb) -> anyhow::Result<Exit> {
    let path = match config {
        Some(path) => std::path::absolute(path)?,
        None => config::service_file().context("the variable ProgramData is not set")?,
    };
    match verb {
        ServiceVerb::Install => install(path, config.is_none()),
        ServiceVerb::Uninstall => uninstall(&path),
        ServiceVerb::Run => dispatch(path),
    }
}

/// Installs the service, which starts with Windows and not at once.
fn install(config: PathBuf, own_folder: bool) -> anyhow::Result<Exit> {
    let access = ServiceManagerAccess::CONNECT | ServiceManagerAccess::CREATE_SERVICE;
    let manager = ServiceManager::local_computer(None::<&str>, access).context(AS_ADMINISTRATOR)?;
    let info = ServiceInfo {
        name: NAME.into(),
        display_name: "bearer-proxy".into(),
        service_type: ServiceType::OWN_PROCESS,
        start_type: ServiceStartType::AutoStart,
        error_control: ServiceErrorControl::Normal,
        executable_path: std::env::current_exe()?,
        launch_arguments: vec![
            "service".into(),
            "run".into(),
            "--config".into(),
            config.clone().into(),
        ],
        dependencies: vec![],
        account_name: Some(account().into()),
        account_password: None,
    };
    // A service that restarts by itself must be allowed to start.
    let access = ServiceAccess::CHANGE_CONFIG | ServiceAccess::START | ServiceAccess::DELETE;
    let service = manager.create_service(&info, access).context("the service cannot be created")?;
    let folder = config.parent().filter(|_| own_folder);
    if let Err(error) = configure(&service, folder) {
        let _ = service.delete();
        return Err(error);
    }
    outln!("installed the service {NAME}, which runs as {}", account())?;
    match (config.exists(), own_folder) {
        (true, true) => outln!("start it:  net start {NAME}")?,
        (false, true) => outln!("write {}, then:  net start {NAME}", config.display())?,
        (_, false) => outln!(
            "give that account the right to read {} and its secrets, then:  net start {NAME}",
            config.display()
        )?,
    }
    Ok(Exit::Done)
}

/// Sets what [`ServiceInfo`] has no place for: restarts, the event log, and who may read the folder.
fn configure(service: &Service, folder: Option<&Path>) -> anyhow::Result<()> {
    // The last action is repeated.
    let restart = ServiceAction { action_type: ServiceActionType::Restart, delay: RESTART_PAUSE };
    let restarts = ServiceFailureActions {
        reset_period: ServiceFailureResetPeriod::After(CRASHES_COUNT_FOR),
        reboot_msg: None,
        command: None,
        actions: Some(vec![restart]),
    };
    // A service without one of them works.
    for (setting, set) in [
        ("the description", service.set_description(env!("CARGO_PKG_DESCRIPTION"))),
        ("the delayed start", service.set_delayed_auto_start(true)),
        ("the time to drain at a shutdown", service.set_preshutdown_timeout(PRESHUTDOWN_TIMEOUT)),
        ("the restart after a crash", service.update_failure_actions(restarts)),
    ] {
        if let Err(error) = set {
            errln!("warning: {setting} cannot be set: {:#}", anyhow::Error::from(error));
        }
    }
    eventlog::register(NAME).context("the source of events cannot be registered")?;
    if let Some(folder) = folder {
        std::fs::create_dir_all(folder).with_context(|| folder.display().to_string())?;
        keep_private(folder)?;
    }
    Ok(())
}

/// Only administrators, the system and the service may read the folder, which holds secrets. Below
/// `%ProgramData%` all users may, if nothing else is said.
fn keep_private(folder: &Path) -> anyhow::Result<()> {
    let system = std::env::var_os("SystemRoot").context("the variable SystemRoot is not set")?;
    let done = Command::new(PathBuf::from(system).join("System32").join("icacls.exe"))
        .arg(folder)
        .args(["/inheritance:r", "/grant:r"])
        // By their numbers, since their names are translated: the system, and administrators.
        .args(["*S-1-5-18:(OI)(CI)F", "*S-1-5-32-544:(OI)(CI)F"])
        .arg(format!("{}:(OI)(CI)RX", account()))
        .output()
        .context("icacls cannot be run")?;
    ensure!(
        done.status.success(),
        "icacls cannot protect {}: {}",
        folder.display(),
        String::from_utf8_lossy(&done.stderr).trim()
    );
    Ok(())
}

/// Stops the service, which drains, and removes it.
fn uninstall(config: &Path) -> anyhow::Result<Exit> {
    let manager = ServiceManager::local_computer(None::<&str>, ServiceManagerAccess::CONNECT)?;
    let access = ServiceAccess::QUERY_STATUS | ServiceAccess::STOP | ServiceAccess::DELETE;
    let service = manager.open_service(NAME, access).context(AS_ADMINISTRATOR)?;
    if service.query_status()?.current_state != ServiceState::Stopped {
        service.stop()?;
    }
    let asked = Instant::now();
    while service.query_status()?.current_state != ServiceState::Stopped {
        ensure!(asked.elapsed() < STOP_TIMEOUT, "the service does not stop");
        sleep(Duration::from_millis(100));
    }
    service.delete()?;
    eventlog::deregister(NAME).context("the source of events cannot be removed")?;
    outln!("removed the service {NAME}; {} and its secrets stay", config.display())?;
    Ok(Exit::Done)
}

define_windows_service!(service_main, serve);

/// Hands the process to the service control manager, which calls [`serve`] on a thread of its own.
fn dispatch(config: PathBuf) -> anyhow::Result<Exit> {
    /// ERROR_FAILED_SERVICE_CONTROLLER_CONNECT: the process was started by another program.
    const NOT_A_SERVICE: i32 = 1063;
    let _ = CONFIG.set(config);
    match service_dispatcher::start(NAME, service_main) {
        Ok(()) => Ok(Exit::Done),
        Err(windows_service::Error::Winapi(error))
            if error.raw_os_error() == Some(NOT_A_SERVICE) =>
        {
            bail!("only Windows runs the service; `bearer-proxy run` serves in a console")
        }
        Err(error) => Err(error.into()),
    }
}

/// Serves until the service is stopped.
///
/// A wrong command line or configuration is an orderly end with an error code: a restart does not repair it.
/// With any other failure the process ends without one, and Windows restarts it.
fn serve(_: Vec<OsString>) {
    // Without an event log the service works, and only says nothing.
    let _ = event_log::open(NAME);
    if service_control::connect().is_err() {
        return;
    }
    let exit = ended(run::run(CONFIG.get().map(PathBuf::as_path), &[]));
    match exit {
        Exit::Done | Exit::Usage | Exit::Config => service_control::stopped(exit.code()),
        failed => std::process::exit(failed.code().into()),
    }
}

const AS_ADMINISTRATOR: &str =
    "the service cannot be opened; administrators may, if it is installed";

/// The virtual account of the service: Windows makes it, and it has no password.
fn account() -> String {
    format!("NT SERVICE\\{NAME}")
}
