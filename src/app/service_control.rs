//! The service control manager of Windows: the state that it shows, and the controls that it sends.
//!
//! Only a process that [`connect`]ed is a service; in any other one the functions do nothing.

use std::sync::OnceLock;
use std::time::Duration;

use tokio::sync::Notify;
use windows_service::service::{
    ServiceControl, ServiceControlAccept, ServiceExitCode, ServiceState, ServiceStatus, ServiceType,
};
use windows_service::service_control_handler::{
    self, ServiceControlHandlerResult, ServiceStatusHandle,
};

/// The name of the service, of its account (`NT SERVICE\bearer-proxy`) and of its source of events.
pub const NAME: &str = "bearer-proxy";

/// Longest time for a start, and for the first step of a stop.
const PATIENCE: Duration = Duration::from_secs(30);

/// Windows takes the time in milliseconds as 32 bits.
const LONGEST_HINT: Duration = Duration::from_secs(86_400);

/// Added to the longest drain: the log is written, and listeners close.
const LAST_STEPS: Duration = Duration::from_secs(5);

static SERVICE: OnceLock<ServiceStatusHandle> = OnceLock::new();
/// Each holds a permit until it is taken, so that no control is lost while nothing waits for it.
static STOP: Notify = Notify::const_new();
static RELOAD: Notify = Notify::const_new();

/// Makes the process a service that is starting.
///
/// # Errors
/// The process was not started by the service control manager.
pub fn connect() -> windows_service::Result<()> {
    // `handle` is a function, which captures nothing: at the first stop the library frees what a closure has
    // captured, and Windows may still ask for the state (`Interrogate`) after that.
    let service = service_control_handler::register(NAME, handle)?;
    let _ = SERVICE.set(service);
    pending(ServiceState::StartPending, 1, PATIENCE);
    Ok(())
}

/// The service has ended in order, or with an error that a restart does not repair. Windows takes any other
/// end of the process for a crash, and restarts it.
pub fn stopped(code: u8) {
    let code = match code {
        0 => ServiceExitCode::NO_ERROR,
        code => ServiceExitCode::ServiceSpecific(code.into()),
    };
    report(ServiceStatus { exit_code: code, ..status(ServiceState::Stopped) });
}

/// The service serves.
pub(super) fn running() {
    let controls_accepted = ServiceControlAccept::STOP
        | ServiceControlAccept::SHUTDOWN
        | ServiceControlAccept::PRESHUTDOWN
        | ServiceControlAccept::PARAM_CHANGE;
    report(ServiceStatus { controls_accepted, ..status(ServiceState::Running) });
}

/// The service stops, within this time.
pub(super) fn stopping(longest: Duration) {
    pending(ServiceState::StopPending, 2, longest.saturating_add(LAST_STEPS).min(LONGEST_HINT));
}

/// Completes at a stop, which the computer's shutdown is too.
pub(super) async fn stop() {
    STOP.notified().await;
}

/// Completes at `ParamChange`: the configuration has changed.
pub(super) async fn reload() {
    RELOAD.notified().await;
}

fn handle(control: ServiceControl) -> ServiceControlHandlerResult {
    match control {
        ServiceControl::Stop | ServiceControl::Shutdown | ServiceControl::Preshutdown => {
            pending(ServiceState::StopPending, 1, PATIENCE);
            STOP.notify_one();
        }
        ServiceControl::ParamChange => RELOAD.notify_one(),
        ServiceControl::Interrogate => {}
        _ => return ServiceControlHandlerResult::NotImplemented,
    }
    ServiceControlHandlerResult::NoError
}

/// Reports a step of a start or a stop, and how long it may take.
fn pending(state: ServiceState, checkpoint: u32, wait_hint: Duration) {
    report(ServiceStatus { checkpoint, wait_hint, ..status(state) });
}

fn status(current_state: ServiceState) -> ServiceStatus {
    ServiceStatus {
        service_type: ServiceType::OWN_PROCESS,
        current_state,
        controls_accepted: ServiceControlAccept::empty(),
        exit_code: ServiceExitCode::NO_ERROR,
        checkpoint: 0,
        wait_hint: Duration::ZERO,
        process_id: None,
    }
}

/// The program works without the service control manager, so a failure is only logged.
fn report(status: ServiceStatus) {
    let Some(service) = SERVICE.get() else { return };
    if let Err(error) = service.set_service_status(status) {
        tracing::debug!(%error, "the service manager cannot be notified");
    }
}
