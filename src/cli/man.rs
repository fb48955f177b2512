//! `man`: the manual. The page of the program has verbs, keys, signals, files, environment and exit codes,
//! the page of the configuration file has its keys by table.

use clap::{Arg, Command, CommandFactory};
use clap_mangen::Man;
use clap_mangen::roff::{Inline, Roff, bold, roman};

use super::args::{Args, ManualPage};
use super::exit::Exit;
use super::output::out;
use crate::config::schema::{KeyDoc, ValueKind, keys};

const DESCRIPTION: &str = "An authenticating outbound reverse proxy. Apps speak plain HTTP to it on localhost. It \
    obtains OAuth 2.0 tokens with the client credentials grant (RFC 6749), renews them in the background, attaches them \
    with the scopes that the matched route needs, and forwards to the upstream over TLS. What no route claims gets 404 \
    and no token.";

const FORMAT: &str = "TOML, in UTF-8. NAME stands for a name that you choose. Durations and sizes have units: \"250ms\", \
    \"30s\", \"5m\", \"1h\"; \"512B\", \"64KiB\", \"16MiB\". ${NAME} and ${NAME:-default} are filled in from the environment \
    in ordinary values. Secrets are references and never values. \"bearer-proxy check\" says whether a file is right, with \
    line and column where it is not.";

const SIGNALS: [(&str, &str); 4] = [
    (
        "SIGTERM",
        "Leave in order: not ready at once, accept requests for shutdown.lame_duck, then finish requests in progress \
         within shutdown.drain_timeout.",
    ),
    ("SIGINT", "The same without the lame duck."),
    ("a second SIGTERM or SIGINT", "End at once, with exit code 130."),
    (
        "SIGHUP",
        "Reload the configuration. With a controlling terminal: leave, since the terminal was closed.",
    ),
];

const FILES: [(&str, &str); 4] = [
    ("./bearer-proxy.toml", "The configuration, if --config names no other file."),
    ("$XDG_CONFIG_HOME/bearer-proxy/bearer-proxy.toml", "Read if the first is not there."),
    ("/etc/bearer-proxy/bearer-proxy.toml", "Read if neither of the two is there."),
    (
        "/run/secrets/…",
        "Where configurations usually look for secrets. The file of a secret must not be readable by all users.",
    ),
];

const ENVIRONMENT: [(&str, &str); 7] = [
    ("BEARER_PROXY_CONFIG", "Configuration file, as --config."),
    ("NO_COLOR", "If not empty, diagnostics and the log have no colours."),
    ("HTTPS_PROXY, NO_PROXY", "Read only if egress.proxy is \"env\"."),
    (
        "SSL_CERT_FILE, SSL_CERT_DIR",
        "Roots of trust in place of the system's, if tls.roots is \"system\".",
    ),
    ("CREDENTIALS_DIRECTORY", "Where systemd puts the credentials that .systemd references name."),
    ("NOTIFY_SOCKET, WATCHDOG_USEC", "Set by systemd: readiness, reloads and the watchdog."),
    (
        "BEARER_PROXY_URL, BEARER_PROXY_URL_NAME, BEARER_PROXY_ADMIN_URL",
        "Set for the command of \"run -- CMD\": the proxy, the upstream NAME with its mount, the admin listener.",
    ),
];

const EXITS: [(Exit, &str); 9] = [
    (Exit::Done, "Done."),
    (Exit::Failed, "Failed while running."),
    (Exit::Usage, "The command line is wrong."),
    (Exit::Live, "check --live found a failure."),
    (Exit::Refused, "explain: the request would be refused."),
    (
        Exit::Unreachable,
        "No running instance was reached, or it was not ready in time (wait, status, healthcheck).",
    ),
    (Exit::Address, "An address is in use or not allowed."),
    (Exit::Config, "The configuration is missing or wrong."),
    (Exit::Interrupted, "A second interrupt."),
];

/// Prints a page, as roff.
pub fn man(which: ManualPage) -> anyhow::Result<Exit> {
    let mut page = Vec::new();
    match which {
        ManualPage::Program => {
            let command = Args::command();
            let man = Man::new(command.clone());
            man.render_title(&mut page)?;
            man.render_name_section(&mut page)?;
            body(command).to_writer(&mut page)?;
        }
        ManualPage::Configuration => configuration().to_writer(&mut page)?,
    }
    out!("{}", String::from_utf8_lossy(&page))?;
    Ok(Exit::Done)
}

/// The page of the configuration file, with a section for each table.
fn configuration() -> Roff {
    let mut page = Roff::new();
    let version = concat!("bearer-proxy ", env!("CARGO_PKG_VERSION"));
    page.control("TH", ["bearer-proxy.toml", "5", "", version]);
    heading(&mut page, "NAME");
    page.text([roman("bearer-proxy.toml - configuration of bearer-proxy")]);
    heading(&mut page, "DESCRIPTION");
    page.text([roman(FORMAT)]);
    let mut table = None;
    for key in keys() {
        let above = key.path.split_once('.').map_or("file", |(above, _)| above);
        if table.as_deref() != Some(above) {
            heading(&mut page, &above.to_uppercase());
            table = Some(above.to_owned());
        }
        describe_key(&mut page, &key);
    }
    section(&mut page, "FILES", &FILES);
    heading(&mut page, "SEE ALSO");
    page.text([bold("bearer-proxy"), roman("(1)")]);
    page
}

/// All sections after the name.
fn body(mut command: Command) -> Roff {
    // It fills in what each verb takes over from the command itself.
    command.build();
    let mut page = Roff::new();
    heading(&mut page, "SYNOPSIS");
    page.text([bold("bearer-proxy"), roman(" [--config FILE] VERB …")]);
    heading(&mut page, "DESCRIPTION");
    page.text([roman(DESCRIPTION)]);
    heading(&mut page, "OPTIONS");
    command.get_arguments().for_each(|argument| describe_argument(&mut page, argument));
    heading(&mut page, "VERBS");
    command.get_subcommands().for_each(|verb| describe(&mut page, "bearer-proxy", verb));
    heading(&mut page, "CONFIGURATION");
    page.text([roman(
        "TOML. NAME stands for a name that you choose. \"bearer-proxy schema KEY\" prints the same for one key.",
    )]);
    keys().iter().for_each(|key| describe_key(&mut page, key));
    section(&mut page, "SIGNALS", &SIGNALS);
    section(&mut page, "FILES", &FILES);
    section(&mut page, "ENVIRONMENT", &ENVIRONMENT);
    heading(&mut page, "EXIT STATUS");
    for (exit, meaning) in EXITS {
        item(&mut page, &exit.code().to_string(), &[roman(meaning)]);
    }
    item(&mut page, "CODE", &[roman("\"run -- CMD\" ends with the exit code of CMD.")]);
    heading(&mut page, "SEE ALSO");
    page.text([bold("bearer-proxy.toml"), roman("(5)")]);
    page
}

fn describe_key(page: &mut Roff, key: &KeyDoc) {
    let kind = match key.kind {
        ValueKind::Written => "",
        ValueKind::Default => "Default. ",
        ValueKind::Example => "Example. ",
    };
    let text = format!("{kind}{}", key.about);
    item(page, &key.path, &[roman(&key.setting), Inline::LineBreak, roman(text)]);
}

fn heading(page: &mut Roff, title: &str) {
    page.control("SH", [title]);
}

fn section(page: &mut Roff, title: &str, items: &[(&str, &str)]) {
    heading(page, title);
    for (term, text) in items {
        item(page, term, &[roman(*text)]);
    }
}

/// A term, and below it, indented, what it means.
fn item(page: &mut Roff, term: &str, text: &[Inline]) {
    page.control("TP", []);
    page.text([bold(term)]);
    page.text(text);
}

/// A verb with its flags, and the verbs below it.
fn describe(page: &mut Roff, above: &str, verb: &Command) {
    if verb.get_name() == "help" {
        return;
    }
    let name = format!("{above} {}", verb.get_name());
    let usage = verb.clone().render_usage().to_string();
    let usage = usage.strip_prefix("Usage: ").unwrap_or(&usage);
    page.control("SS", [usage.split(" <COMMAND>").next().unwrap_or(usage)]);
    page.text([roman(verb.get_about().map(ToString::to_string).unwrap_or_default())]);
    let own = |argument: &&Arg| !["help", "config"].contains(&argument.get_id().as_str());
    verb.get_arguments().filter(own).for_each(|argument| describe_argument(page, argument));
    verb.get_subcommands().for_each(|below| describe(page, &name, below));
}

fn describe_argument(page: &mut Roff, argument: &Arg) {
    let short = argument.get_short().map(|short| format!("-{short}, ")).unwrap_or_default();
    item(page, &format!("{short}{argument}"), &[roman(help(argument))]);
}

/// The meaning of an argument, with its default.
fn help(argument: &Arg) -> String {
    let text = argument.get_help().map(ToString::to_string).unwrap_or_default();
    let defaults: Vec<_> =
        argument.get_default_values().iter().map(|value| value.to_string_lossy()).collect();
    match defaults.join(", ") {
        none if none.is_empty() || !argument.get_action().takes_values() => text,
        default => format!("{text} (default: {default})"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_page_is_complete() {
        let page = body(Args::command()).render().replace("\\-", "-");
        for verb in Args::command().get_subcommands() {
            assert!(page.contains(&format!("bearer-proxy {}", verb.get_name())), "{verb}");
        }
        for key in keys() {
            assert!(page.contains(&key.path), "{}", key.path);
        }
        for title in ["SIGNALS", "FILES", "ENVIRONMENT", "EXIT STATUS"] {
            assert!(page.contains(title), "{title}");
        }
        assert!(page.contains("--fresh") && page.contains("78"), "{page}");
    }

    #[test]
    fn the_page_of_the_file_has_each_key_below_its_table() {
        let page = configuration().render().replace("\\-", "-");
        for key in keys() {
            assert!(page.contains(&key.path), "{}", key.path);
        }
        let titles: Vec<_> = page.lines().filter(|line| line.starts_with(".SH")).collect();
        for title in ["NAME", "SERVER", "CREDENTIALS", "UPSTREAMS", "FILES"] {
            let found = titles.iter().filter(|line| line.contains(title)).count();
            assert_eq!(found, 1, "{title}: {titles:?}");
        }
    }
}
