//! [`probe`]: the steps of `check --live` for a store, in their order, each with what was found.

use std::time::{Duration, Instant};

use redis::{Value, cmd};
use tokio_util::task::AbortOnDropHandle;

use super::super::metrics::ShareMetrics;
use super::super::names::TokenName;
use super::super::probe::{Ended, ProbeStep, ProbeVerdict, Steps, run_all};
use super::super::store::{StoreError, TokenStore};
use super::address::ServerAddress;
use super::announcer::Announcer;
use super::options::{Servers, StoreOptions};
use super::session::{self, Limit, OpenSession, Session, Stream};
use super::{RedisStore, sentinel};
use crate::telemetry::Registry;

/// The oldest version that has all that the scripts use.
const OLDEST: (u32, u32) = (6, 2);
/// Replies that the round trip is the shortest of.
const PINGS: usize = 3;

/// Goes through the steps, up to the first that the next ones need. In a cluster the first node is looked at,
/// and the rights at the node of the key.
pub async fn probe(options: &StoreOptions) -> Vec<ProbeStep> {
    let mut steps = Steps::default();
    let _ = steps.all(options).await;
    steps.0
}

impl Steps {
    async fn all(&mut self, options: &StoreOptions) -> Result<(), Ended> {
        let address = self.address(options).await?;
        let stream = match &address {
            ServerAddress::Tcp(_) => self.tcp(&address, options).await?,
            ServerAddress::Unix(_) => self.socket(&address, options).await?,
        };
        let announcer = Announcer::new(&options.key_prefix);
        let opened = self.login(stream, &address, options, &announcer).await?;
        // The bytes move beside the steps; where the connection ends, the next step fails.
        let _driver = AbortOnDropHandle::new(tokio::spawn(opened.driver));
        self.server(&opened.session, options, &announcer).await?;
        self.rights(options).await
    }

    async fn address(&mut self, options: &StoreOptions) -> Result<ServerAddress, Ended> {
        match &options.servers {
            Servers::Standalone(address) => Ok(address.clone()),
            Servers::Cluster(addresses) => {
                let first = addresses.first().cloned();
                let none = StoreError::Refused("no node of the cluster is configured".into());
                self.need("dns", first.ok_or(none))
            }
            Servers::Sentinel(sentinels) => {
                let named = sentinel::all_masters(sentinels, options).await;
                let masters: Vec<_> =
                    named.iter().filter_map(|(_, named)| named.as_ref().ok()).collect();
                let Some(first) = masters.first().map(|master| (*master).clone()) else {
                    return self.need("sentinel", sentinel::master(sentinels, options).await);
                };
                let agree = masters.iter().all(|master| **master == first);
                let silent =
                    named.iter().filter_map(|(asked, named)| named.is_err().then_some(asked));
                let silent: Vec<String> = silent.map(ServerAddress::to_string).collect();
                match (agree, &*silent) {
                    (true, []) => self.ok("sentinel", format!("all name {first}")),
                    (false, _) => {
                        self.note("sentinel", ProbeVerdict::Warning, "they name different masters")
                    }
                    (true, silent) => {
                        let found = format!("{first}; no answer from {}", silent.join(", "));
                        self.note("sentinel", ProbeVerdict::Warning, found);
                    }
                }
                Ok(first)
            }
        }
    }

    async fn socket(
        &mut self,
        address: &ServerAddress,
        options: &StoreOptions,
    ) -> Result<Stream, Ended> {
        let opened = session::open_stream(address, options).await;
        let stream = self.need("socket", opened)?;
        self.ok("socket", address.to_string());
        Ok(stream)
    }

    async fn tcp(
        &mut self,
        address: &ServerAddress,
        options: &StoreOptions,
    ) -> Result<Stream, Ended> {
        let connector = self.need("tls", session::connector(address, options))?;
        self.connect(connector).await.map(|connection| Stream::Left(connection.stream))
    }

    async fn login(
        &mut self,
        stream: Stream,
        address: &ServerAddress,
        options: &StoreOptions,
        announcer: &Announcer,
    ) -> Result<OpenSession, Ended> {
        let limit = Limit::of(options.connect_timeout);
        let login =
            session::log_in(stream, address, &options.login, options.database, Some(announcer));
        let ended = limit.bound(login).await.unwrap_or_else(|| {
            let limit = limit.duration();
            Err(StoreError::Unreachable(format!("{address} did not let us in within {limit:?}")))
        });
        let opened = self.need("login", ended)?;
        self.ok("login", format!("user {}", options.login.user()));
        Ok(opened)
    }

    /// The steps that look at the server itself.
    async fn server(
        &mut self,
        session: &Session,
        options: &StoreOptions,
        announcer: &Announcer,
    ) -> Result<(), Ended> {
        let limit = || Limit::of(options.operation_timeout);
        let role = session.role(limit()).await;
        let role = self.need("role", role)?;
        let is_cluster = matches!(options.servers, Servers::Cluster(_));
        match (&*role, is_cluster) {
            ("master", _) | (_, true) => self.ok("role", &*role),
            _ => {
                let found = format!("{} is a replica that takes no writes", session.address);
                return self.need("role", Err(StoreError::Unreachable(found)));
            }
        }
        match session.info(limit()).await {
            Ok(info) => {
                self.version(&info);
                self.eviction(&info);
            }
            Err(error) => self.note("version", ProbeVerdict::Warning, error.to_string()),
        }
        let subscribed = session.subscribe(announcer, limit()).await;
        self.need("rights", subscribed)?;
        self.round_trip(session, options.operation_timeout).await
    }

    fn version(&mut self, info: &str) {
        let (program, version) = match (field(info, "valkey_version"), field(info, "redis_version"))
        {
            (Some(version), _) => ("Valkey", version),
            (None, Some(version)) => ("Redis", version),
            (None, None) => {
                return self.note("version", ProbeVerdict::Warning, "the server does not tell");
            }
        };
        let mut numbers = version.split('.').map_while(|number| number.parse::<u32>().ok());
        let found = (numbers.next().unwrap_or(0), numbers.next().unwrap_or(0));
        match found >= OLDEST {
            true => self.ok("version", format!("{program} {version}")),
            false => {
                let found = format!("{program} {version}; 6.2 or later is needed");
                self.note("version", ProbeVerdict::Failed, found);
            }
        }
    }

    fn eviction(&mut self, info: &str) {
        let Some(policy) = field(info, "maxmemory_policy") else { return };
        let limited = field(info, "maxmemory").is_some_and(|limit| limit != "0");
        // All our keys have an end, so that the volatile policies evict them too.
        if policy.starts_with("allkeys-") || (policy.starts_with("volatile-") && limited) {
            let found = format!(
                "maxmemory-policy is {policy}: the server may drop tokens while they live, which costs token \
                 requests; use noeviction, or a server of its own"
            );
            return self.note("eviction", ProbeVerdict::Warning, found);
        }
        self.ok("eviction", policy);
    }

    async fn round_trip(&mut self, session: &Session, timeout: Duration) -> Result<(), Ended> {
        let mut shortest = Duration::MAX;
        for _ in 0..PINGS {
            let begun = Instant::now();
            let pinged = session.ping(Limit::of(timeout)).await;
            self.need("round trip", pinged)?;
            shortest = shortest.min(begun.elapsed());
        }
        self.ok("round trip", format!("{shortest:.1?}"));
        let asked = session.time(Limit::of(timeout)).await;
        let theirs = self.need("clock", asked)?;
        self.clock(theirs);
        Ok(())
    }

    /// Runs all scripts on a key that is thrown away.
    async fn rights(&mut self, options: &StoreOptions) -> Result<(), Ended> {
        let registered = ShareMetrics::register(&Registry::new());
        let malformed = registered.map_err(|error| StoreError::Refused(error.to_string()));
        let metrics = self.need("rights", malformed)?;
        let store = RedisStore::start(options.clone(), metrics);
        let name = TokenName::random();
        let mut reached = store.reached();
        let waited = Limit::of(options.connect_timeout * 2).bound(reached.wait_for(|now| *now));
        // Where it is not reached, the first operation says why.
        let _ = waited.await;
        let ran = run_all(&store, &name, "does something between filter channels?").await;
        let dropped = store.drop_keys(&name).await;
        self.need("rights", ran.and(dropped))?;
        let found =
            "acquire, renew, publish, fail and announcements work on a key that was thrown away";
        self.ok("rights", found);
        Ok(())
    }
}

/// The value of a line `name:value` in the reply to INFO.
fn field<'a>(info: &'a str, name: &str) -> Option<&'a str> {
    info.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':')).map(str::trim)
}

impl Session {
    /// The reply to INFO.
    async fn info(&self, limit: Limit) -> Result<String, StoreError> {
        match self.send("INFO", &cmd("INFO"), limit).await? {
            Value::VerbatimString { text, .. } => Ok(text),
            Value::BulkString(bytes) => String::from_utf8(bytes).map_err(|_| StoreError::Malformed),
            _ => Err(StoreError::Malformed),
        }
    }

    /// The time of the server since 1970.
    async fn time(&self, limit: Limit) -> Result<Duration, StoreError> {
        let Value::Array(parts) = self.send("TIME", &cmd("TIME"), limit).await? else {
            return Err(StoreError::Malformed);
        };
        let number = |value: Option<&Value>| match value {
            Some(Value::BulkString(bytes)) => std::str::from_utf8(bytes).ok()?.parse::<u64>().ok(),
            _ => None,
        };
        let (seconds, micros) = (number(parts.first()), number(parts.get(1)));
        let (seconds, micros) = seconds.zip(micros).ok_or(StoreError::Malformed)?;
        Ok(Duration::from_secs(seconds) + Duration::from_micros(micros))
    }
}

#[cfg(test)]
mod tests {
    use redis::RedisResult;

    use super::super::options::Login;
    use super::super::testing::{Server, name, run};
    use super::*;
    use crate::secret::Reference;

    /// The line of the guide, with this password.
    fn user(password: &str) -> String {
        let guide = include_str!("../../../docs/src/guide/valkey.md");
        let line = guide.lines().find(|line| line.starts_with("user bearer-proxy on")).unwrap();
        line.replace("PASSWORD", password).replace("user ", "ACL SETUSER ")
    }

    fn with_login(server: &Server, password: &str) -> StoreOptions {
        use std::os::unix::fs::PermissionsExt;
        let file = server.dir.path().join("password");
        std::fs::write(&file, password).unwrap();
        std::fs::set_permissions(&file, std::fs::Permissions::from_mode(0o600)).unwrap();
        let username = Some("bearer-proxy".to_owned());
        StoreOptions {
            login: Login { username, password: Some(Reference::File(file)) },
            ..server.options()
        }
    }

    fn verdicts(steps: &[ProbeStep]) -> Vec<(&str, ProbeVerdict)> {
        steps.iter().map(|step| (step.name, step.verdict)).collect()
    }

    #[tokio::test]
    async fn the_user_of_the_guide_can_do_all_that_is_needed_and_nothing_else() {
        let Some(server) = Server::start(&[]) else { return };
        let () = server.run(&user("canary"));
        let () = server.run("SET foreign value");
        let steps = probe(&with_login(&server, "canary")).await;
        let ok =
            ["socket", "login", "role", "version", "eviction", "round trip", "clock", "rights"];
        assert_eq!(verdicts(&steps), ok.map(|name| (name, ProbeVerdict::Ok)), "{steps:?}");
        // What was thrown away is gone, and so is not counted.
        let left: Vec<String> = server.run("KEYS bearer-proxy:*");
        let lives = |key: &String| server.run::<i64>(&format!("PTTL {key}")) > 1;
        assert!(!left.iter().any(lives), "{left:?}");

        let mut connection = server.connect();
        let () = run(&mut connection, "AUTH bearer-proxy canary").unwrap();
        let own = name("client").token_key("bearer-proxy");
        let () = run(&mut connection, &format!("SET {own} value")).unwrap();
        for command in [
            "KEYS *",
            "SCAN 0",
            "CONFIG GET *",
            "FLUSHALL",
            "SCRIPT FLUSH",
            "ACL LIST",
            "MONITOR",
            "SHUTDOWN",
            "REPLICAOF NO ONE",
            "GET foreign",
            "SET foreign other",
            "PUBLISH foreign message",
            "PSUBSCRIBE *",
            "EVAL return(redis.call('GET','foreign')) 0",
            "EVAL return(redis.call('GET',KEYS[1])) 1 foreign",
            "EVAL return(redis.call('KEYS','*')) 0",
            "EVAL return(redis.call('CONFIG','GET','*')) 0",
            "EVAL return(redis.call('PUBLISH','foreign','message')) 0",
        ] {
            let refused: RedisResult<Value> = run(&mut connection, command);
            let error = refused.unwrap_err().to_string();
            let denied = ["permission", "executing the script can't", "not allowed from script"];
            assert!(denied.iter().any(|word| error.contains(word)), "{command}: {error}");
        }
    }

    #[tokio::test]
    async fn a_missing_right_and_a_bad_policy_are_named() {
        let Some(server) = Server::start(&["--maxmemory-policy", "allkeys-lru"]) else { return };
        let () = server.run(&user("canary"));
        let () = server.run("ACL SETUSER bearer-proxy -hset");
        let steps = probe(&with_login(&server, "canary")).await;
        let eviction = steps.iter().find(|step| step.name == "eviction").unwrap();
        assert_eq!(eviction.verdict, ProbeVerdict::Warning);
        assert!(eviction.found.contains("allkeys-lru") && eviction.found.contains("noeviction"));
        let last = steps.last().unwrap();
        assert_eq!((last.name, last.verdict), ("rights", ProbeVerdict::Failed), "{steps:?}");
        assert!(last.found.contains("ACL GETUSER bearer-proxy"), "{}", last.found);
        let () = server.run("ACL SETUSER bearer-proxy +hset -info resetchannels");
        let steps = probe(&with_login(&server, "canary")).await;
        let version = steps.iter().find(|step| step.name == "version").unwrap();
        assert!(version.found.contains("run INFO"), "{}", version.found);
        let last = steps.last().unwrap();
        assert_eq!((last.name, last.verdict), ("rights", ProbeVerdict::Failed), "{steps:?}");
        assert!(last.found.contains("PSUBSCRIBE"), "{}", last.found);
    }

    #[tokio::test]
    async fn the_steps_end_where_the_next_ones_cannot_be() {
        let Some(mut server) = Server::start(&[]) else { return };
        let () = server.run(&user("canary"));
        let steps = probe(&with_login(&server, "wrong")).await;
        let expected = [("socket", ProbeVerdict::Ok), ("login", ProbeVerdict::Failed)];
        assert_eq!(verdicts(&steps), expected, "{steps:?}");
        server.kill();
        let steps = probe(&server.options()).await;
        assert_eq!(verdicts(&steps), [("socket", ProbeVerdict::Failed)], "{steps:?}");
    }

    #[test]
    fn old_servers_fail() {
        let version = |info: &str| {
            let mut steps = Steps::default();
            steps.version(info);
            (steps.0[0].verdict, steps.0[0].found.clone())
        };
        for (info, verdict, found) in [
            ("redis_version:7.2.4\r\nvalkey_version:8.0.1\r\n", ProbeVerdict::Ok, "Valkey 8.0.1"),
            ("redis_version:6.2.14\r\n", ProbeVerdict::Ok, "Redis 6.2.14"),
            ("redis_version:6.0.16\r\n", ProbeVerdict::Failed, "6.2 or later"),
            ("", ProbeVerdict::Warning, "does not tell"),
        ] {
            let (is, words) = version(info);
            assert!(is == verdict && words.contains(found), "{info}: {words}");
        }
    }
}
