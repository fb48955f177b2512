//! Tasks of one type. tokio compiles what runs a task anew for each type of future, and twice for those of
//! one thread: several KiB each. A boxed future has the same type as all others, at the cost of one
//! allocation.

use std::pin::Pin;

use tokio::task::JoinHandle;

/// A future that ends without a value, for a [`JoinSet`](tokio::task::JoinSet).
pub fn boxed<F: Future<Output = ()> + Send + 'static>(
    future: F,
) -> Pin<Box<dyn Future<Output = ()> + Send>> {
    Box::pin(future)
}

/// Spawns a task, as [`tokio::spawn`] does.
pub fn spawn<F: Future<Output = ()> + Send + 'static>(future: F) -> JoinHandle<()> {
    tokio::spawn(boxed(future))
}

/// Spawns a task on this thread, as [`tokio::task::spawn_local`] does.
pub fn spawn_local<F: Future<Output = ()> + 'static>(future: F) -> JoinHandle<()> {
    let future: Pin<Box<dyn Future<Output = ()>>> = Box::pin(future);
    tokio::task::spawn_local(future)
}
