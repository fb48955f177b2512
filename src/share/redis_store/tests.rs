//! The store over a real server: what works, and what each failure does.

use std::io::{BufRead, BufReader, Write};
use std::os::unix::net::UnixStream;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use rustix::process::Signal;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::UnixListener;

use super::super::protocol::{AcquireReply, PublishReply};
use super::super::sealing::SealedPlace;
use super::super::store::{Acquire, Announcement, StoreError, TokenStore};
use super::ServerAddress;
use super::options::{Login, Servers, StoreOptions};
use super::testing::{PATIENCE, Server, ask, name, patient, store, until};
use crate::secret::Reference;

const LIFE: Duration = Duration::from_secs(600);

fn unreachable(result: Result<AcquireReply, StoreError>) -> String {
    match result {
        Err(StoreError::Unreachable(message)) => message,
        other => panic!("{other:?}"),
    }
}

fn refused(result: Result<AcquireReply, StoreError>) -> String {
    match result {
        Err(StoreError::Refused(message)) => message,
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn replicas_share_a_token() {
    let Some(server) = Server::start(&[]) else { return };
    let (one, registry) = store(server.options());
    let (other, _) = store(server.options());
    let token = name("client");
    until(&other, true).await;
    let mut announced = other.announcements(&token);
    assert_eq!(one.acquire(&token, ask("r1")).await, Ok(AcquireReply::Lead(1)));
    let held = other.acquire(&token, ask("r2")).await;
    assert!(
        matches!(held, Ok(AcquireReply::Held(left)) if left > Duration::from_secs(4)),
        "{held:?}"
    );
    assert_eq!(one.renew(&token, "r1", 1, Duration::from_secs(5)).await, Ok(true));
    assert_eq!(other.renew(&token, "r2", 1, Duration::from_secs(5)).await, Ok(false));
    one.announce_handover(&token).await.unwrap();
    assert_eq!(
        one.publish(&token, "r1", 1, b"\x01\x00sealed", LIFE).await,
        Ok(PublishReply::Accepted)
    );
    assert_eq!(announced.recv().await, Ok(Announcement::HandingOver));
    assert_eq!(announced.recv().await, Ok(Announcement::Published(1)));
    let Ok(AcquireReply::Token(value)) = other.acquire(&token, ask("r2")).await else { panic!() };
    assert_eq!(
        (value.generation, &*value.owner, &*value.sealed),
        (1, "r1", &b"\x01\x00sealed"[..])
    );
    assert!(value.life_left <= LIFE && value.life_left > LIFE / 2);
    assert_eq!(one.publish(&token, "r2", 1, b"late", LIFE).await, Ok(PublishReply::Superseded(1)));
    let again = Acquire { generation: 1, token_owner: "r1", ..ask("r1") };
    let waits = one.acquire(&token, again).await;
    assert!(
        matches!(waits, Ok(AcquireReply::Wait(left)) if left <= Duration::from_secs(1)),
        "{waits:?}"
    );
    let looks = Acquire { lead: None, ..again };
    assert_eq!(one.acquire(&token, looks).await, Ok(AcquireReply::NoOther));
    assert_eq!(one.fail(&token, "r1", Duration::from_secs(9), None).await, Ok(false));
    let text = String::from_utf8(registry.render()).unwrap();
    for line in [
        "bearer_proxy_share_connected 1",
        "bearer_proxy_share_operations_total{operation=\"acquire\",result=\"ok\"} 2",
        "bearer_proxy_share_operations_total{operation=\"acquire\",result=\"wait\"} 1",
        "bearer_proxy_share_operations_total{operation=\"publish\",result=\"superseded\"} 1",
        "bearer_proxy_share_operations_total{operation=\"fail\",result=\"superseded\"} 1",
        "bearer_proxy_share_operations_total{operation=\"renew\",result=\"unreachable\"} 0",
        "bearer_proxy_share_operation_duration_seconds_count{operation=\"publish\"} 2",
    ] {
        assert!(text.contains(line), "{line}\n{text}");
    }
}

#[tokio::test]
async fn scripts_are_sent_again_to_a_server_that_forgot_them() {
    let Some(server) = Server::start(&[]) else { return };
    let (store, _) = store(server.options());
    let token = name("client");
    assert_eq!(store.acquire(&token, ask("r1")).await, Ok(AcquireReply::Lead(1)));
    let () = server.run("SCRIPT FLUSH");
    assert_eq!(store.acquire(&token, ask("r1")).await, Ok(AcquireReply::Lead(2)));
    assert_eq!(store.fail(&token, "r1", Duration::from_secs(9), Some("secret")).await, Ok(true));
    let info: String = server.run("INFO commandstats");
    let count = |command: &str| info.lines().any(|line| line.starts_with(command));
    assert!(count("cmdstat_evalsha:") && count("cmdstat_eval:calls=3,"), "{info}");
}

#[tokio::test]
async fn a_server_that_is_killed_and_comes_back_empty_is_reached_again() {
    let Some(mut server) = Server::start(&[]) else { return };
    let (store, registry) = store(server.options());
    let token = name("client");
    assert_eq!(store.acquire(&token, ask("r1")).await, Ok(AcquireReply::Lead(1)));
    let mut announced = store.announcements(&token);
    server.kill();
    until(&store, false).await;
    let begun = Instant::now();
    unreachable(store.acquire(&token, ask("r1")).await);
    assert!(begun.elapsed() < Duration::from_millis(450), "no operation connects");
    let text = String::from_utf8(registry.render()).unwrap();
    assert!(text.contains("bearer_proxy_share_connected 0"), "{text}");
    server.start_again();
    until(&store, true).await;
    let remembers = Acquire { generation: 7, token_owner: "r2", ..ask("r1") };
    assert_eq!(store.acquire(&token, remembers).await, Ok(AcquireReply::Lead(8)));
    store.publish(&token, "r1", 8, b"sealed", LIFE).await.unwrap();
    let announcement = tokio::time::timeout(PATIENCE, announced.recv()).await.unwrap();
    assert_eq!(announcement, Ok(Announcement::Published(8)), "it is subscribed again");
}

#[tokio::test]
async fn a_server_that_hangs_delays_an_operation_by_its_timeout_and_no_other() {
    let Some(server) = Server::start(&[]) else { return };
    let operation_timeout = Duration::from_millis(500);
    let (store, _) = store(StoreOptions { operation_timeout, ..server.options() });
    let token = name("client");
    until(&store, true).await;
    server.signal(Signal::STOP);
    let store = Arc::new(store);
    let begun = Instant::now();
    let later = tokio::spawn({
        let (store, token) = (Arc::clone(&store), token.clone());
        async move {
            tokio::time::sleep(Duration::from_millis(300)).await;
            store.acquire(&token, ask("r2")).await
        }
    });
    let message = unreachable(store.acquire(&token, ask("r1")).await);
    assert!(message.contains("acquire within 500ms"), "{message}");
    let took = begun.elapsed();
    assert!(took >= Duration::from_millis(500) && took < Duration::from_secs(3), "{took:?}");
    until(&store, false).await;
    let begun = Instant::now();
    unreachable(store.acquire(&token, ask("r1")).await);
    assert!(begun.elapsed() < Duration::from_millis(450), "{:?}", begun.elapsed());
    // One that was under way says why the connection was given up.
    let later = unreachable(later.await.unwrap());
    assert!(later.contains("within 500ms"), "{later}");
    server.signal(Signal::CONT);
    until(&store, true).await;
    // The first one may have been carried out late: what counts is that there is a reply.
    assert!(matches!(store.acquire(&token, ask("r1")).await, Ok(AcquireReply::Lead(_))));
}

fn login(server: &Server, password: &str) -> Login {
    let file = server.dir.path().join("password");
    std::fs::write(&file, password).unwrap();
    set_private(&file);
    Login { username: Some("replica".to_owned()), password: Some(Reference::File(file)) }
}

fn set_private(file: &std::path::Path) {
    use std::os::unix::fs::PermissionsExt;
    std::fs::set_permissions(file, std::fs::Permissions::from_mode(0o600)).unwrap();
}

#[tokio::test]
async fn a_password_is_read_for_each_connection() {
    let Some(server) = Server::start(&[]) else { return };
    let () = server.run("ACL SETUSER replica on >first-canary ~* &* +@all");
    let options = StoreOptions { login: login(&server, "first-canary\n"), ..server.options() };
    let (store, _) = store(options);
    let token = name("client");
    assert_eq!(store.acquire(&token, ask("r1")).await, Ok(AcquireReply::Lead(1)));
    login(&server, "second-canary\n");
    let () = server.run("ACL SETUSER replica resetpass >second-canary");
    let _: i64 = server.run("CLIENT KILL USER replica");
    until(&store, false).await;
    until(&store, true).await;
    assert_eq!(store.acquire(&token, ask("r1")).await, Ok(AcquireReply::Lead(2)));
}

#[tokio::test]
async fn a_wrong_password_is_refused_in_words_without_it() {
    let Some(server) = Server::start(&[]) else { return };
    let () = server.run("ACL SETUSER replica on >right-canary ~* &* +@all");
    let options = StoreOptions { login: login(&server, "wrong-canary"), ..server.options() };
    let (refusing, _) = store(options.clone());
    let message = refused(refusing.acquire(&name("client"), ask("r1")).await);
    assert!(message.contains("refused the login of the user replica"), "{message}");
    assert!(message.contains("redis.sock") && !message.contains("canary"), "{message}");
    let absent = Reference::File(server.dir.path().join("absent"));
    let login = Login { password: Some(absent), ..options.login.clone() };
    let (without, _) = store(StoreOptions { login, ..options });
    let message = refused(without.acquire(&name("client"), ask("r1")).await);
    assert!(message.contains("absent does not exist"), "{message}");
}

#[tokio::test]
async fn a_replica_is_not_reached_until_it_is_the_master() {
    let Some(server) = Server::start(&[]) else { return };
    let (store, _) = store(server.options());
    let token = name("client");
    until(&store, true).await;
    let () = server.run("REPLICAOF 127.0.0.1 1");
    let message = unreachable(store.acquire(&token, ask("r1")).await);
    assert!(message.contains("is a replica that takes no writes"), "{message}");
    until(&store, false).await;
    let () = server.run("REPLICAOF NO ONE");
    until(&store, true).await;
    assert_eq!(store.acquire(&token, ask("r1")).await, Ok(AcquireReply::Lead(1)));
}

#[tokio::test]
async fn a_server_that_is_absent_from_the_start_is_reached_when_it_comes() {
    let Some(mut server) = Server::start(&[]) else { return };
    server.kill();
    let _ = std::fs::remove_file(server.socket());
    let (store, _) = store(server.options());
    let token = name("client");
    let message = unreachable(store.acquire(&token, ask("r1")).await);
    assert!(message.contains("redis.sock"), "{message}");
    server.start_again();
    until(&store, true).await;
    assert_eq!(store.acquire(&token, ask("r1")).await, Ok(AcquireReply::Lead(1)));
}

#[tokio::test]
async fn a_database_of_its_own_is_selected() {
    let Some(server) = Server::start(&[]) else { return };
    let (store, _) = store(StoreOptions { database: 3, ..server.options() });
    let token = name("client");
    assert_eq!(store.acquire(&token, ask("r1")).await, Ok(AcquireReply::Lead(1)));
    let info: String = server.run("INFO keyspace");
    assert!(info.contains("db3:keys=1") && !info.contains("db0"), "{info}");
    let clients: String = server.run("CLIENT LIST");
    assert!(clients.contains("name=bearer-proxy"), "{clients}");
}

#[tokio::test]
async fn a_store_that_is_dropped_disconnects() {
    let Some(server) = Server::start(&["--loglevel", "verbose"]) else { return };
    let mut server = server;
    let (dropped, _) =
        store(StoreOptions { servers: Servers::Standalone(server.address()), ..server.options() });
    until(&dropped, true).await;
    drop(dropped);
    // An event of the server: the end of the connection is in its log.
    tokio::task::spawn_blocking(move || server.wait_for("Client closed connection")).await.unwrap();
}

fn is_socket(path: &std::path::Path) -> bool {
    path.extension().is_some_and(|extension| extension == "sock")
}

/// The whole of what a server keeps and shows.
fn kept(server: &Server, monitored: &[u8]) -> Vec<u8> {
    let mut all = monitored.to_vec();
    let mut folders = vec![server.dir.path().to_owned()];
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            match path.is_dir() {
                true => folders.push(path),
                false if path.ends_with("password") || is_socket(&path) => {}
                false => all.extend(std::fs::read(path).unwrap()),
            }
        }
    }
    all
}

/// A socket that passes all bytes on to the server, and keeps a copy.
fn tapped(server: &Server) -> (ServerAddress, Arc<Mutex<Vec<u8>>>) {
    let (path, behind) = (server.dir.path().join("tapped.sock"), server.socket());
    let (listener, taken) = (UnixListener::bind(&path).unwrap(), Arc::<Mutex<Vec<u8>>>::default());
    let copy = Arc::clone(&taken);
    tokio::spawn(async move {
        while let Ok((client, _)) = listener.accept().await {
            let server = tokio::net::UnixStream::connect(&behind).await.unwrap();
            let ((from_client, to_client), (from_server, to_server)) =
                (tokio::io::split(client), tokio::io::split(server));
            tokio::spawn(tap(from_client, to_server, Arc::clone(&copy)));
            tokio::spawn(tap(from_server, to_client, Arc::clone(&copy)));
        }
    });
    (ServerAddress::Unix(path), taken)
}

async fn tap(
    mut from: impl AsyncRead + Unpin,
    mut to: impl AsyncWrite + Unpin,
    copy: Arc<Mutex<Vec<u8>>>,
) {
    let mut bytes = vec![0; 4096];
    while let Ok(read @ 1..) = from.read(&mut bytes).await {
        copy.lock().unwrap().extend(&bytes[..read]);
        to.write_all(&bytes[..read]).await.unwrap();
    }
}

#[tokio::test]
async fn nothing_of_a_token_is_in_the_files_of_the_server_on_its_monitor_or_on_the_wire() {
    let Some(server) = Server::start(&["--appendonly", "yes", "--appendfsync", "always"]) else {
        return;
    };
    let () = server.run("ACL SETUSER replica on >password-canary ~* &* +@all");
    let mut monitor = BufReader::new(UnixStream::connect(server.socket()).unwrap());
    monitor.get_mut().write_all(b"MONITOR\r\n").unwrap();
    let mut monitored = Vec::new();
    monitor.read_until(b'\n', &mut monitored).unwrap();
    let (address, wire) = tapped(&server);
    let login = login(&server, "password-canary");
    let (store, _) = store(StoreOptions { login, ..patient(Servers::Standalone(address)) });
    let keys = crate::share::testing::sealing_keys();
    let token = crate::share::testing::canary_token();
    let token_name = name("canary-client");
    let place =
        SealedPlace { prefix: "bearer-proxy", name: &token_name, generation: 1, owner: "r1" };
    let sealed = keys.seal(&token, place).unwrap();
    store.acquire(&token_name, ask("r1")).await.unwrap();
    store.renew(&token_name, "r1", 1, LIFE).await.unwrap();
    store.publish(&token_name, "r1", 1, &sealed, LIFE).await.unwrap();
    let Ok(AcquireReply::Token(value)) = store.acquire(&token_name, ask("r2")).await else {
        panic!()
    };
    let opened = keys.open(&value.sealed, place);
    assert_eq!(opened, Ok(token));
    let () = server.run("SAVE");
    let () = server.run("ECHO the-last-command");
    while !monitored.windows(16).any(|window| window == b"the-last-command") {
        monitor.read_until(b'\n', &mut monitored).unwrap();
    }
    // The login is on the wire: on a socket of this machine, or within TLS.
    let wire = String::from_utf8_lossy(&wire.lock().unwrap()).replace("password-canary", "");
    let all = [kept(&server, &monitored), wire.into_bytes()].concat();
    let holds = |text: &str| all.windows(text.len()).any(|window| window == text.as_bytes());
    // It is looked for in the right place.
    assert!(holds(&token_name.token_key("bearer-proxy")) && holds("REDIS") && holds("EVALSHA"));
    assert!(holds("HELLO\r\n"), "the wire is a part of it");
    for text in ["canary", "example"] {
        assert!(!holds(text), "{text}");
    }
}

#[tokio::test]
async fn a_reply_without_end_ends_the_connection() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("hostile.sock");
    let listener = UnixListener::bind(&path).unwrap();
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            let endless = [b"$100000000\r\n".to_vec(), vec![b'x'; 5 * 1024 * 1024]].concat();
            // It fails when the client has had enough.
            let _ = stream.write_all(&endless).await;
            let _ = stream.read_to_end(&mut Vec::new()).await;
        }
    });
    let address = ServerAddress::Unix(path);
    let (store, _) = store(patient(Servers::Standalone(address)));
    let message = unreachable(store.acquire(&name("client"), ask("r1")).await);
    assert!(message.contains("more than 4 MiB without the end of a reply"), "{message}");
}

/// Values that no script wrote keep no replica from a token.
#[tokio::test]
async fn what_no_script_wrote_heals() {
    let Some(server) = Server::start(&[]) else { return };
    let (store, _) = store(server.options());
    let token = name("client");
    let [state, value] = [token.state_key("bearer-proxy"), token.token_key("bearer-proxy")];
    let garbage = [
        format!(
            "HSET {state} gen x gowner r9 epoch x owner r9 until x not_before x hour x calls x"
        ),
        format!(
            "HSET {state} gen 1e300 epoch -7 owner r9 until 1e300 not_before nan hour 0.5 calls -1"
        ),
        format!("HSET {state} owner r9 until 9000000000000 not_before 9000000000000"),
        format!("HSET {state} gen 9 epoch 8\nSET {value} garbage"),
        format!("SET {state} text"),
        format!("HSET {value} field text"),
        format!("LPUSH {state} text\nLPUSH {value} text"),
    ];
    for commands in garbage {
        let () = server.run("FLUSHALL");
        for command in commands.lines() {
            let _: redis::Value = server.run(command);
        }
        let reply = store.acquire(&token, ask("r1")).await;
        let Ok(AcquireReply::Lead(epoch)) = reply else { panic!("{commands}: {reply:?}") };
        let published = store.publish(&token, "r1", epoch, b"sealed", LIFE).await;
        assert_eq!(published, Ok(PublishReply::Accepted), "{commands}");
        let Ok(AcquireReply::Token(found)) = store.acquire(&token, ask("r2")).await else {
            panic!("{commands}")
        };
        assert_eq!((found.generation, &*found.sealed), (epoch, &b"sealed"[..]), "{commands}");
        assert!(*store.reached().borrow(), "{commands}");
    }
}

#[tokio::test]
async fn a_value_that_is_too_long_is_not_sent() {
    let Some(server) = Server::start(&["--maxmemory", "0"]) else { return };
    let (store, _) = store(server.options());
    let token = name("client");
    let long = "x".repeat(5 * 1024 * 1024);
    let set = |long: &str| {
        let mut connection = server.connect();
        let () = redis::cmd("SET")
            .arg(token.token_key("bearer-proxy"))
            .arg(long)
            .arg("PX")
            .arg(600_000)
            .query(&mut connection)
            .unwrap();
        let state = token.state_key("bearer-proxy");
        let _: i64 = redis::cmd("HSET")
            .arg(state)
            .arg("gen")
            .arg(3)
            .arg("gowner")
            .arg(long)
            .query(&mut connection)
            .unwrap();
    };
    set(&long);
    assert_eq!(store.acquire(&token, ask("r1")).await, Ok(AcquireReply::Lead(4)));
    let looks = Acquire { lead: None, ..ask("r1") };
    assert_eq!(store.acquire(&token, looks).await, Ok(AcquireReply::NoOther));
    let info: String = server.run("INFO stats");
    let connections = info.lines().find(|line| line.starts_with("total_connections_received:"));
    // This process has connected once; the others are those of the test.
    assert_eq!(connections, Some("total_connections_received:3"), "{info}");
}
