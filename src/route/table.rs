//! `Table`: rules in a trie of path segments, so lookup time does not grow with their number.
//!
//! Among the rules that allow a request's method, the most specific wins: an exact host before a
//! wildcard host before none, then the path segment by segment from the left. The order in which rules
//! were written does not matter.

use std::collections::HashMap;

use fnv::FnvHashMap;
use http::Method;

use super::host::HostPattern;
use super::path::PatternSegment;
use super::rule::{Methods, Rule};
use super::target::{Interpretations, lenient_interpretations, normalize_segment};

/// Rules and their values.
#[derive(Debug)]
pub struct Table<T> {
    exact_hosts: HashMap<String, Node>,
    wildcard_hosts: Vec<(HostPattern, Node)>,
    any_host: Node,
    entries: Vec<Entry<T>>,
}

#[derive(Debug)]
struct Entry<T> {
    methods: Methods,
    value: T,
}

/// A node of the trie. `here` and `rest` hold indexes of entries: patterns that end at this node, and
/// those with `/**` below it.
#[derive(Debug, Default)]
struct Node {
    literal: FnvHashMap<String, Node>,
    any: Option<Box<Node>>,
    rest: Vec<usize>,
    here: Vec<usize>,
}

/// How literal segments are compared.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Case {
    Sensitive,
    Insensitive,
}

/// The result of a lookup.
#[derive(Debug, PartialEq, Eq)]
pub enum Lookup<'a, T> {
    /// The value of the rule that claims the request.
    Found(&'a T),
    /// Rules claim the host and path, but not the method.
    MethodNotAllowed {
        /// The value of the Allow header.
        allow: String,
        /// The values of these rules.
        rules: Vec<&'a T>,
    },
    /// A rule claims the path, and another one in another interpretation of it; holds the value of the
    /// first.
    Ambiguous(&'a T),
    /// No rule claims the host and path.
    NotFound,
}

/// Two rules that claim a common request, neither more specific, by their index in the input.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Conflict {
    /// Index of the earlier rule.
    pub first: usize,
    /// Index of the later rule.
    pub second: usize,
}

impl<T> Table<T> {
    /// Builds a table.
    ///
    /// # Errors
    /// All pairs of rules that conflict.
    pub fn build(rules: Vec<(Rule, T)>) -> Result<Self, Vec<Conflict>> {
        let mut table = Self {
            exact_hosts: HashMap::new(),
            wildcard_hosts: Vec::new(),
            any_host: Node::default(),
            entries: Vec::new(),
        };
        let mut conflicts = Vec::new();
        for (index, (rule, value)) in rules.into_iter().enumerate() {
            let Self { exact_hosts, wildcard_hosts, any_host, entries } = &mut table;
            let root = match &rule.host {
                None => any_host,
                Some(host) if host.is_wildcard() => {
                    let known = wildcard_hosts.iter().position(|(pattern, _)| pattern == host);
                    let at = known.unwrap_or_else(|| {
                        wildcard_hosts.push((host.clone(), Node::default()));
                        wildcard_hosts.len() - 1
                    });
                    &mut wildcard_hosts[at].1
                }
                Some(host) => exact_hosts.entry(host.as_str().to_owned()).or_default(),
            };
            let indexes = root.indexes_for(&rule);
            let overlapping =
                indexes.iter().filter(|other| entries[**other].methods.overlaps(&rule.methods));
            conflicts.extend(overlapping.map(|first| Conflict { first: *first, second: index }));
            indexes.push(index);
            entries.push(Entry { methods: rule.methods, value });
        }
        if conflicts.is_empty() { Ok(table) } else { Err(conflicts) }
    }

    /// Finds the rule that claims a request. `host` is in lower case without port, `path` is canonical.
    ///
    /// A path that another rule would claim if its slashes were decoded or merged or its parameters
    /// removed is [`Lookup::Ambiguous`]: a token for one interpretation must not travel with the other.
    /// `alike` says of two rules that a server may take one for the other without harm.
    pub fn find(
        &self,
        host: &str,
        method: &Method,
        path: &str,
        alike: impl Fn(&T, &T) -> bool,
    ) -> Lookup<'_, T> {
        match self.search(host, method, path, Case::Sensitive) {
            Ok(index) => {
                let value = &self.entries[index].value;
                let alike = |other: usize| alike(value, &self.entries[other].value);
                match self.is_ambiguous(host, method, path, index, alike) {
                    true => Lookup::Ambiguous(value),
                    false => Lookup::Found(value),
                }
            }
            Err(refused) if refused.is_empty() => Lookup::NotFound,
            Err(refused) => {
                let rules = refused.iter().map(|index| &self.entries[*index].value).collect();
                Lookup::MethodNotAllowed { allow: self.allow(&refused), rules }
            }
        }
    }

    /// True if a lenient server could read the path as one that other rules claim. Of servers that merge
    /// slashes which they have decoded, only those rules count that are not alike: RabbitMQ's default
    /// vhost is `%2F`, and `/queues/%2F/q` must not be refused because of a rule for `/queues/{vhost}`.
    fn is_ambiguous(
        &self,
        host: &str,
        method: &Method,
        path: &str,
        index: usize,
        alike: impl Fn(usize) -> bool,
    ) -> bool {
        let claimed = |other: &String| match self.search(host, method, other, Case::Sensitive) {
            Ok(found) => (found != index).then_some(Some(found)),
            Err(refused) => (!refused.is_empty()).then_some(None),
        };
        let Interpretations { decoded, merged } = lenient_interpretations(path);
        decoded.iter().any(|other| claimed(other).is_some())
            || merged.iter().filter_map(claimed).any(|found| !found.is_some_and(&alike))
    }

    /// Finds the rule that claims a request at an upstream that ignores case in paths: an exact literal
    /// before a literal in another case before `{x}` before `/**`.
    pub fn find_in_any_case(&self, host: &str, method: &Method, path: &str) -> Option<&T> {
        let index = self.search(host, method, path, Case::Insensitive).ok()?;
        Some(&self.entries[index].value)
    }

    /// The index of the entry that claims a request, or of all that would if they allowed its method.
    fn search(
        &self,
        host: &str,
        method: &Method,
        path: &str,
        case: Case,
    ) -> Result<usize, Vec<usize>> {
        let mut refused = Vec::new();
        let mut take = |candidates: &[usize]| {
            let allows = |index: &&usize| self.entries[**index].methods.contains(method);
            let found = candidates.iter().find(allows).copied();
            if found.is_none() {
                refused.extend_from_slice(candidates);
            }
            found
        };
        let path = path.strip_prefix('/').unwrap_or(path);
        let wildcards = self.wildcard_hosts.iter().filter(|(pattern, _)| pattern.matches(host));
        let exact = self.exact_hosts.get(host).into_iter();
        let mut roots = exact.chain(wildcards.map(|(_, node)| node)).chain([&self.any_host]);
        roots.find_map(|root| root.find(Some(path), case, &mut take)).ok_or(refused)
    }

    /// The value of the Allow header (RFC 9110 section 10.2.1).
    fn allow(&self, refused: &[usize]) -> String {
        let methods = refused.iter().flat_map(|index| self.entries[*index].methods.iter().cloned());
        Methods::new(methods).iter().map(Method::as_str).collect::<Vec<_>>().join(", ")
    }
}

impl Node {
    /// The list that the index of a rule belongs in; makes the nodes on the way.
    fn indexes_for(&mut self, rule: &Rule) -> &mut Vec<usize> {
        let mut node = self;
        for segment in rule.path.segments() {
            node = match segment {
                PatternSegment::Literal(literal) => {
                    node.literal.entry(literal.to_owned()).or_default()
                }
                PatternSegment::Any => node.any.get_or_insert_default(),
                PatternSegment::Rest => return &mut node.rest,
            };
        }
        &mut node.here
    }

    /// The first entry, in order of specificity, that `take` accepts. `path` is the rest of the path,
    /// `None` after its last segment.
    fn find(
        &self,
        path: Option<&str>,
        case: Case,
        take: &mut impl FnMut(&[usize]) -> Option<usize>,
    ) -> Option<usize> {
        let Some(path) = path else {
            return take(&self.here).or_else(|| take(&self.rest));
        };
        let (segment, left) = match path.bytes().position(|byte| byte == b'/') {
            Some(end) => (&path[..end], path.get(end + 1..)),
            None => (path, None),
        };
        let name = normalize_segment(segment);
        let literal = self.literal.get(name.as_ref());
        if let Some(found) = literal.and_then(|node| node.find(left, case, take)) {
            return Some(found);
        }
        if case == Case::Insensitive {
            let alike = self.literal.iter().filter(|(known, _)| known.eq_ignore_ascii_case(&name));
            let mut found = alike.filter_map(|(_, node)| node.find(left, case, take));
            if let Some(found) = found.next() {
                return Some(found);
            }
        }
        // `{x}` stands for a segment that is not empty: `/a/` does not match `/a/{x}`.
        let any = self.any.as_ref().filter(|_| !segment.is_empty());
        any.and_then(|node| node.find(left, case, take)).or_else(|| take(&self.rest))
    }
}

#[cfg(test)]
mod tests {
    use std::cmp::Ordering;

    use super::*;
    use crate::route::PathPattern;
    use proptest::prelude::*;

    /// The order of specificity, stated as plainly as possible: a literal before `{x}` before `/**`,
    /// segment by segment from the left.
    fn compare(first: &PathPattern, second: &PathPattern) -> Ordering {
        let key = |segment| match segment {
            PatternSegment::Literal(literal) => (0, literal),
            PatternSegment::Any => (1, ""),
            PatternSegment::Rest => (2, ""),
        };
        first.segments().map(key).cmp(second.segments().map(key))
    }

    fn rule(host: Option<&str>, path: &str, methods: &[Method]) -> Rule {
        Rule {
            host: host.map(|host| HostPattern::parse(host).unwrap()),
            path: PathPattern::parse(path).unwrap(),
            methods: Methods::new(methods.iter().cloned()),
        }
    }

    fn table(rules: &[(Option<&str>, &'static str, &[Method])]) -> Table<&'static str> {
        Table::build(
            rules.iter().map(|(host, path, methods)| (rule(*host, path, methods), *path)).collect(),
        )
        .unwrap()
    }

    #[test]
    fn the_most_specific_rule_wins() {
        const G: &[Method] = &[Method::GET];
        let table = table(&[
            (None, "/**", &[Method::GET, Method::POST]),
            (None, "/v1/{a}/x", G),
            (None, "/v1/b/{c}", G),
            (None, "/v1/b/**", &[Method::PUT]),
            (None, "/v1/{a}", G),
            (Some("erp.local"), "/v1/{b}", G),
        ]);
        let check = |host: &str, method: Method, path: &str, expected: &str| {
            assert_eq!(
                table.find(host, &method, path, |_, _| false),
                Lookup::Found(&expected),
                "{method} {path}"
            );
        };
        check("x", Method::GET, "/v1/b/x", "/v1/b/{c}");
        check("x", Method::GET, "/v1/q/x", "/v1/{a}/x");
        check("x", Method::HEAD, "/v1/q/x", "/v1/{a}/x");
        check("x", Method::POST, "/v1/q/x", "/**");
        check("x", Method::PUT, "/v1/b", "/v1/b/**");
        check("x", Method::GET, "/v1/b", "/v1/{a}");
        check("erp.local", Method::GET, "/v1/b", "/v1/{b}");
        check("x", Method::GET, "/", "/**");
        let refused = table.find("x", &Method::DELETE, "/v1/b/x", |_, _| false);
        let Lookup::MethodNotAllowed { allow, rules } = refused else { panic!("{refused:?}") };
        assert_eq!(allow, "GET, HEAD, POST, PUT");
        assert!(rules.contains(&&"/v1/b/{c}") && rules.contains(&&"/**"), "{rules:?}");
    }

    #[test]
    fn every_spelling_and_interpretation_finds_one_rule() {
        const G: &[Method] = &[Method::GET];
        let table = table(&[
            (None, "/v1/**", G),
            (None, "/v1/pay:close", G),
            (None, "/v1/%C3%A9", G),
            (None, "/v1/pay", &[Method::POST]),
            (None, "/v1/a/b", G),
            (None, "/files/{name}", G),
        ]);
        let check = |path: &str, expected: Option<&str>| {
            let found = table.find("x", &Method::GET, path, |_, _| false);
            match expected {
                Some(expected) => assert_eq!(found, Lookup::Found(&expected), "{path}"),
                None => assert!(matches!(found, Lookup::Ambiguous(_)), "{path}: {found:?}"),
            }
        };
        check("/v1/pay%3aclose", Some("/v1/pay:close"));
        check("/v1/%c3%a9", Some("/v1/%C3%A9"));
        check("/v1/a%20b", Some("/v1/**"));
        check("/v1/x;y", Some("/v1/**"));
        check("/v1/pay:close;x", None);
        check("/v1/a%2Fb", None);
        check("/v1/x%2Fy", Some("/v1/**"));
        check("/files/a%2Fb", Some("/files/{name}"));
        check("/files/a%252Fb", Some("/files/{name}"));
        check("/files/%2F", Some("/files/{name}"));
        check("/v1/x//y", Some("/v1/**"));
        check("/v1//a/b", None);
        check("/v1/a%252Fb", None);
        check("/v1/a%2F%2Fb", None);
        let alike = |path| table.find("x", &Method::GET, path, |_, other| *other == "/v1/a/b");
        assert_eq!(alike("/v1/a%2F%2Fb"), Lookup::Found(&"/v1/**"));
        assert_eq!(alike("/v1/a%2Fb"), Lookup::Ambiguous(&"/v1/**"));
        assert_eq!(alike("/v1//a/b"), Lookup::Ambiguous(&"/v1/**"));
    }

    #[test]
    fn conflicts_are_found_whatever_the_order() {
        const G: &[Method] = &[Method::GET];
        let build = |paths: &[(&str, &[Method])]| {
            Table::build(
                paths.iter().map(|(path, methods)| (rule(None, path, methods), ())).collect(),
            )
            .map(|_| ())
        };
        assert_eq!(build(&[("/{a}", G), ("/{b}", G)]), Err(vec![Conflict { first: 0, second: 1 }]));
        assert_eq!(build(&[("/{a}", G), ("/{b}", &[Method::POST])]), Ok(()));
        assert_eq!(build(&[("/a/{b}", G), ("/{a}/b", G)]), Ok(()));
        assert_eq!(build(&[("/a", G), ("/a/", G), ("/a/**", G)]), Ok(()));
    }

    fn pattern() -> impl Strategy<Value = String> {
        let segment = prop_oneof![Just("a"), Just("b"), Just("{x}"), Just("{y}")];
        (prop::collection::vec(segment, 0..4), any::<bool>()).prop_map(|(segments, rest)| {
            let mut text: String = segments
                .iter()
                .enumerate()
                .map(
                    |(i, s)| {
                        if s.starts_with('{') { format!("/{{p{i}}}") } else { format!("/{s}") }
                    },
                )
                .collect();
            if rest {
                text += "/**"
            } else if text.is_empty() {
                text += "/"
            }
            text
        })
    }

    proptest! {
        /// The trie agrees with the plainest search there is.
        #[test]
        fn a_table_is_the_most_specific_match(
            patterns in prop::collection::hash_set(pattern(), 1..12),
            path in "(/[abc]){1,4}/?",
        ) {
            let patterns: Vec<PathPattern> =
                patterns.iter().map(|text| PathPattern::parse(text).unwrap()).collect();
            let rules = patterns.iter().map(|path| (
                Rule { host: None, path: path.clone(), methods: Methods::new([Method::GET]) },
                path.as_str().to_owned(),
            )).collect();
            let Ok(table) = Table::build(rules) else { return Ok(()) };
            let naive = patterns.iter().filter(|pattern| pattern.covers(&path))
                .min_by(|a, b| compare(a, b)).map(|pattern| pattern.as_str().to_owned());
            match (table.find("", &Method::GET, &path, |_, _| false), naive) {
                (Lookup::Found(found), Some(expected)) => prop_assert_eq!(found, &expected),
                (Lookup::NotFound, None) => {}
                (found, expected) => prop_assert!(false, "{:?} but {:?}", found, expected),
            }
        }
    }
}
