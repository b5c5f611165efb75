//! Rules on paths, methods and networks; pure.
//!
//! Of the rules whose path, regions and networks fit a request, those of the most specific path are asked first, by name.
//! The first whose methods fit decides. Where a path has rules that allow some methods, it has no others.

use std::collections::BTreeMap;
use std::net::IpAddr;

use http::{HeaderValue, Method};
use ipnet::IpNet;

use super::Refusal;
use super::key::{self, Asked};
use super::path::Pattern;
use crate::settings::{RegionName, RuleAction, RuleSettings};

/// Methods that a refusal may name as allowed.
const NAMED: [Method; 7] = [
    Method::GET,
    Method::HEAD,
    Method::POST,
    Method::PUT,
    Method::PATCH,
    Method::DELETE,
    Method::OPTIONS,
];

/// All rules, the most specific paths first.
#[derive(Debug, Default)]
pub(crate) struct Rules {
    paths: Vec<OfPath>,
    needs_region: bool,
    /// Some path of theirs has one.
    have_capitals: bool,
}

#[derive(Debug)]
struct OfPath {
    pattern: Pattern,
    /// By name.
    rules: Vec<Rule>,
}

#[derive(Debug)]
struct Rule {
    methods: Vec<Method>,
    regions: Vec<RegionName>,
    from: Vec<IpNet>,
    allows: bool,
    max_body_bytes: Option<u64>,
}

/// What rules say of one reading of a path.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Verdict {
    /// With the bound on the body, where a rule sets one.
    Pass(Option<u64>),
    Deny,
}

/// How a pattern is held against a path.
type Fits = fn(&Pattern, &str) -> bool;

impl Rules {
    pub(crate) fn new(settings: &BTreeMap<String, RuleSettings>) -> Self {
        let mut paths: BTreeMap<Pattern, Vec<Rule>> = BTreeMap::new();
        for rule in settings.values() {
            paths.entry(Pattern::new(&rule.path)).or_default().push(Rule::new(rule));
        }
        let needs_region = settings.values().any(|rule| !rule.regions.is_empty());
        let paths = paths.into_iter().map(|(pattern, rules)| OfPath { pattern, rules }).collect();
        let have_capitals = settings.values().any(|rule| has_capital(&rule.path));
        Self { paths, needs_region, have_capitals }
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.paths.is_empty()
    }

    /// Whether [`Asked::region`] makes a difference.
    pub(crate) fn need_region(&self) -> bool {
        self.needs_region
    }

    /// The bound on the body in bytes, where a rule sets one in place of `usual`; of several readings the strictest.
    ///
    /// # Errors
    /// Where the request is denied; or would be by one reading of its path, and not by another.
    pub(crate) fn check(&self, asked: &Asked<'_>, usual: u64) -> Result<Option<u64>, Refusal> {
        let canonical = asked.path.canonical();
        let Verdict::Pass(mut bound) = self.judge(canonical, Pattern::fits, asked.method, asked)
        else {
            return Err(self.denied(asked));
        };
        let others = asked.path.rest().map(|path| (path, Pattern::fits as Fits));
        // Where there is no capital, that reads the same.
        let differs = |path: &&str| self.have_capitals || has_capital(path);
        let in_any_case = asked.path.all().filter(differs);
        let in_any_case = in_any_case.map(|path| (path, Pattern::fits_in_any_case as Fits));
        for (path, fits) in others.chain(in_any_case) {
            match self.judge(path, fits, asked.method, asked) {
                Verdict::Deny => return Err(Refusal::AmbiguousPath),
                Verdict::Pass(other) if other != bound => {
                    bound = Some(bound.unwrap_or(usual).min(other.unwrap_or(usual)));
                }
                Verdict::Pass(_) => {}
            }
        }
        Ok(bound)
    }

    fn judge(&self, path: &str, fits: Fits, method: &Method, asked: &Asked<'_>) -> Verdict {
        for of_path in self.paths.iter().filter(|of_path| fits(&of_path.pattern, path)) {
            let mut has_other_methods = false;
            for rule in of_path.rules.iter().filter(|rule| rule.is_about(asked)) {
                if key::has_method(&rule.methods, method) {
                    return if rule.allows {
                        Verdict::Pass(rule.max_body_bytes)
                    } else {
                        Verdict::Deny
                    };
                }
                has_other_methods |= rule.allows;
            }
            if has_other_methods {
                return Verdict::Deny;
            }
        }
        Verdict::Pass(None)
    }

    /// How a denied request is refused: by its method, where another would pass.
    fn denied(&self, asked: &Asked<'_>) -> Refusal {
        let path = asked.path.canonical();
        let allowed: Vec<&str> = NAMED
            .iter()
            .filter(|method| self.judge(path, Pattern::fits, method, asked) != Verdict::Deny)
            .map(Method::as_str)
            .collect();
        match HeaderValue::try_from(allowed.join(", ")) {
            Ok(list) if !allowed.is_empty() => Refusal::MethodNotAllowed(list),
            _ => Refusal::Forbidden,
        }
    }
}

fn has_capital(path: &str) -> bool {
    path.bytes().any(|byte| byte.is_ascii_uppercase())
}

impl Rule {
    fn new(settings: &RuleSettings) -> Self {
        Self {
            methods: key::methods(&settings.methods),
            regions: settings.regions.clone(),
            from: settings.from.clone(),
            allows: settings.action == RuleAction::Allow,
            max_body_bytes: Some(settings.max_body_bytes).filter(|most| *most != 0),
        }
    }

    /// Whether regions and networks fit.
    fn is_about(&self, asked: &Asked<'_>) -> bool {
        let in_region = |name: &str| self.regions.iter().any(|one| one.as_str() == name);
        (self.regions.is_empty() || asked.region.is_some_and(in_region))
            && (self.from.is_empty() || self.is_from(asked.client))
    }

    fn is_from(&self, client: IpAddr) -> bool {
        let client = client.to_canonical();
        self.from.iter().any(|net| net.contains(&client))
    }
}
