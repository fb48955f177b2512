//! The master that Sentinels name, as Redis's guide for Sentinel clients asks: the first Sentinel that
//! answers counts, and the server itself confirms that it is the master.

use redis::{Value, cmd};

use super::super::store::StoreError;
use super::address::ServerAddress;
use super::options::{Sentinels, StoreOptions};
use super::session::{self, Limit};

/// Asks the Sentinels in turn for the address of the master.
pub(super) async fn master(
    sentinels: &Sentinels,
    options: &StoreOptions,
) -> Result<ServerAddress, StoreError> {
    let mut last = StoreError::Refused("no Sentinel is configured".to_owned());
    for address in &sentinels.addresses {
        match ask(address, sentinels, options).await {
            Ok(master) => return Ok(master),
            Err(error) => last = error,
        }
    }
    Err(last)
}

/// The answer of each Sentinel.
pub(super) async fn all_masters(
    sentinels: &Sentinels,
    options: &StoreOptions,
) -> Vec<(ServerAddress, Result<ServerAddress, StoreError>)> {
    let mut answers = Vec::with_capacity(sentinels.addresses.len());
    for address in &sentinels.addresses {
        answers.push((address.clone(), ask(address, sentinels, options).await));
    }
    answers
}

/// Asks one Sentinel. Each has a time-out of its own, so that one that hangs does not hide the others.
async fn ask(
    address: &ServerAddress,
    sentinels: &Sentinels,
    options: &StoreOptions,
) -> Result<ServerAddress, StoreError> {
    let limit = Limit::of(options.connect_timeout);
    limit.bound(converse(address, sentinels, options, limit)).await.unwrap_or_else(|| {
        let limit = limit.duration();
        Err(StoreError::Unreachable(format!(
            "the Sentinel {address} did not answer within {limit:?}"
        )))
    })
}

async fn converse(
    address: &ServerAddress,
    sentinels: &Sentinels,
    options: &StoreOptions,
    limit: Limit,
) -> Result<ServerAddress, StoreError> {
    let stream = session::open_stream(address, options).await?;
    let mut opened = session::log_in(stream, address, &sentinels.login, 0, None).await?;
    let asked = opened.session.clone();
    let mut command = cmd("SENTINEL");
    command.arg("get-master-addr-by-name").arg(&sentinels.service);
    let reply = opened
        .with_driver(async {
            Ok(asked.send("SENTINEL get-master-addr-by-name", &command, limit).await?)
        })
        .await?;
    named(address, &sentinels.service, reply)
}

fn named(
    address: &ServerAddress,
    service: &str,
    reply: Value,
) -> Result<ServerAddress, StoreError> {
    let Value::Array(parts) = reply else {
        return Err(StoreError::Unreachable(format!(
            "the Sentinel {address} knows no service {service}; is it the name in `sentinel monitor`?"
        )));
    };
    let [Value::BulkString(host), Value::BulkString(port)] = &*parts else {
        return Err(StoreError::Malformed);
    };
    let text = |bytes: &[u8]| std::str::from_utf8(bytes).map(str::to_owned);
    let (Ok(host), Ok(port)) = (text(host), text(port)) else { return Err(StoreError::Malformed) };
    let port = port.parse().map_err(|_| StoreError::Malformed)?;
    address.sibling(&host, port).map_err(|error| {
        StoreError::Refused(format!(
            "the Sentinel {address} names the master {host}:{port}: {error}"
        ))
    })
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::super::options::{Login, Servers};
    use super::super::probe::probe;
    use super::super::testing::{Server, ask, free_port, name, patient, store, until};
    use super::*;
    use crate::share::probe::ProbeVerdict;
    use crate::share::protocol::AcquireReply;
    use crate::share::store::TokenStore;

    fn options(sentinel: u16, service: &str) -> StoreOptions {
        // The first one does not answer.
        let addresses = [free_port(), sentinel]
            .map(|port| ServerAddress::parse(&format!("redis://127.0.0.1:{port}")).unwrap().0);
        patient(Servers::Sentinel(Sentinels {
            addresses: addresses.to_vec(),
            service: service.to_owned(),
            login: Login::default(),
        }))
    }

    #[tokio::test]
    async fn a_failover_is_followed_and_the_token_is_still_there() {
        let [first, second, port] =
            [free_port(), free_port(), free_port()].map(|port| port.to_string());
        let Some(mut master) = Server::start(&["--port", &first]) else { return };
        let replicaof = format!("127.0.0.1 {first}");
        // Without the pause that lets further replicas join a transfer.
        let replica =
            ["--port", &second, "--replicaof", &replicaof, "--repl-diskless-sync-delay", "0"];
        let mut replica = Server::start(&replica).unwrap();
        replica.wait_for("MASTER <-> REPLICA sync: Finished with success");
        let monitor = format!("tokens 127.0.0.1 {first} 1");
        let mut sentinel = Server::start_sentinel(&port, &monitor).unwrap();
        sentinel.wait_for("+slave slave");
        let options = options(port.parse().unwrap(), "tokens");
        let (store, _) = store(options.clone());
        let token = name("client");
        until(&store, true).await;
        assert_eq!(store.acquire(&token, ask("r1")).await, Ok(AcquireReply::Lead(1)));
        let life = Duration::from_secs(600);
        store.publish(&token, "r1", 1, b"sealed", life).await.unwrap();
        // The replica has it.
        let mut administrator = master.connect();
        let () = redis::cmd("SET").arg("after").arg("it").query(&mut administrator).unwrap();
        let _: i64 = redis::cmd("WAIT").arg(1).arg(0).query(&mut administrator).unwrap();
        master.kill();
        until(&store, false).await;
        until(&store, true).await;
        let reply = store.acquire(&token, ask("r2")).await;
        assert!(matches!(reply, Ok(AcquireReply::Token(_))), "{reply:?}");
        let steps = probe(&options).await;
        assert!(steps[0].found.contains(&second) && steps[0].verdict == ProbeVerdict::Warning);
        assert!(steps.iter().all(|step| step.verdict != ProbeVerdict::Failed), "{steps:?}");
    }

    #[tokio::test]
    async fn a_service_that_no_sentinel_knows_is_named() {
        let [first, port] = [free_port(), free_port()].map(|port| port.to_string());
        let monitor = format!("tokens 127.0.0.1 {first} 1");
        let Some(_sentinel) = Server::start_sentinel(&port, &monitor) else { return };
        let options = options(port.parse().unwrap(), "canary");
        let (store, _) = store(options);
        let error = store.acquire(&name("client"), ask("r1")).await.unwrap_err().to_string();
        assert!(error.contains("knows no service canary"), "{error}");
    }
}
