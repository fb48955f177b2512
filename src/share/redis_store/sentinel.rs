//! The master that Sentinels name, as Redis's guide for Sentinel clients asks: the first Sentinel that answers
//! counts, and the server itself confirms that it is the master.

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
        // Each has a time-out of its own, so that one that hangs does not hide the others.
        let limit = Limit::of(options.connect_timeout);
        match limit.bound(ask(address, sentinels, options, limit)).await {
            Some(Ok(master)) => return Ok(master),
            Some(Err(error)) => last = error,
            None => {
                let limit = limit.duration();
                last = StoreError::Unreachable(format!(
                    "the Sentinel {address} did not answer within {limit:?}"
                ));
            }
        }
    }
    Err(last)
}

async fn ask(
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
