//! Which request goes out when: several by weight, with parts that change from one to the next.

use http::HeaderValue;
use rand::{Rng as _, SeedableRng as _};
use rand_xoshiro::Xoshiro256PlusPlus;

use crate::RequestSpec;

/// Weights whose sum, without common factors, is larger do not fit the order that is kept.
const WEIGHTS_MAX: u64 = 100_000;

/// Requests by weight.
#[derive(Clone, Debug)]
pub struct Mix {
    requests: Vec<Weighted>,
    /// Who is next, over and over: each as often as its weight says, spread as evenly as can be.
    order: Vec<u32>,
    seed: u64,
}

#[derive(Clone, Debug)]
struct Weighted {
    request: RequestSpec,
    template: Option<Template>,
}

impl Mix {
    /// One request.
    pub fn one(request: RequestSpec) -> Self {
        Mix { requests: vec![Weighted { request, template: None }], order: vec![0], seed: 0 }
    }

    /// Several requests with their weights.
    ///
    /// # Errors
    /// No request, a weight of zero, or weights without a common measure below 100,000.
    pub fn weighted(requests: Vec<(u32, RequestSpec)>) -> Result<Self, String> {
        if requests.is_empty() {
            return Err("no request to send".to_owned());
        }
        if requests.iter().any(|(weight, _)| *weight == 0) {
            return Err("a weight must be at least 1".to_owned());
        }
        let factor = requests.iter().fold(0, |factor, (weight, _)| gcd(factor, *weight));
        let weights: Vec<i64> = requests.iter().map(|(weight, _)| i64::from(weight / factor)).collect();
        let total: i64 = weights.iter().sum();
        if total.unsigned_abs() > WEIGHTS_MAX {
            return Err(format!("the weights' sum must not exceed {WEIGHTS_MAX}"));
        }
        // Smooth weighted round robin: who is owed most is next.
        let mut owed = vec![0i64; weights.len()];
        let mut order = Vec::new();
        for _ in 0..total {
            owed.iter_mut().zip(&weights).for_each(|(owed, weight)| *owed += weight);
            let next = (0..owed.len()).rev().max_by_key(|index| owed[*index]).unwrap_or(0);
            owed[next] -= total;
            order.push(u32::try_from(next).unwrap_or(0));
        }
        let requests =
            requests.into_iter().map(|(_, request)| Weighted { request, template: None }).collect();
        Ok(Mix { requests, order, seed: 0 })
    }

    /// Reads `{{...}}` in URLs, headers and bodies: see [`Template`]. `lines` gives the lines of a file.
    ///
    /// # Errors
    /// A placeholder that is unknown, or a request that cannot be sent with its placeholders filled in.
    pub fn with_templates(
        mut self,
        seed: u64,
        lines: &mut dyn FnMut(&str) -> Result<Vec<String>, String>,
    ) -> Result<Self, String> {
        self.seed = seed;
        for index in 0..self.requests.len() {
            let template = Template::of(&self.requests[index].request, lines)?;
            self.requests[index].template = template;
            self.render(index, 0)?;
        }
        Ok(self)
    }

    /// Whose turn request `number` is.
    pub fn which(&self, number: u64) -> usize {
        match self.order.len() {
            1 => 0,
            length => self.order[usize::try_from(number % length as u64).unwrap_or(0)] as usize,
        }
    }

    /// The requests that are the same each time, `None` for the others.
    pub fn fixed(&self) -> impl Iterator<Item = Option<&RequestSpec>> {
        self.requests.iter().map(|weighted| weighted.template.is_none().then_some(&weighted.request))
    }

    /// All requests as they were given.
    pub fn requests(&self) -> impl Iterator<Item = &RequestSpec> {
        self.requests.iter().map(|weighted| &weighted.request)
    }

    /// Request `number` from the request at `index`.
    ///
    /// # Errors
    /// What is wrong with it once its placeholders are filled in.
    pub fn render(&self, index: usize, number: u64) -> Result<RequestSpec, String> {
        let Weighted { request, template } = &self.requests[index];
        match template {
            None => Ok(request.clone()),
            Some(template) => template.render(request, number, self.seed),
        }
    }
}

fn gcd(a: u32, b: u32) -> u32 {
    if b == 0 { a } else { gcd(b, a % b) }
}

/// A request's text with placeholders:
///
/// - `{{n}}`: the request's number, from 0
/// - `{{random:LOW:HIGH}}`: a whole number, both ends included
/// - `{{uuid}}`: a random UUID
/// - `{{line:FILE}}`: the lines of a file, one after the other and over again
#[derive(Clone, Debug)]
struct Template {
    url: Vec<Piece>,
    headers: Vec<(http::HeaderName, Vec<Piece>)>,
    body: Option<Vec<Piece>>,
}

#[derive(Clone, Debug, PartialEq)]
enum Piece {
    Text(String),
    Number,
    Random(u64, u64),
    Uuid,
    Line(Vec<String>),
}

type Lines<'a> = &'a mut dyn FnMut(&str) -> Result<Vec<String>, String>;

impl Template {
    /// The template of a request; `None` if nothing in it changes.
    fn of(request: &RequestSpec, lines: Lines<'_>) -> Result<Option<Self>, String> {
        let changes = |pieces: &[Piece]| pieces.iter().any(|piece| !matches!(piece, Piece::Text(_)));
        let url = pieces(&request.url.to_string(), lines)?;
        let mut headers = Vec::new();
        for (name, value) in &request.headers {
            if let Ok(value) = value.to_str() {
                let value = pieces(value, lines)?;
                if changes(&value) {
                    headers.push((name.clone(), value));
                }
            }
        }
        let body = match std::str::from_utf8(&request.body) {
            Ok(text) => Some(pieces(text, lines)?).filter(|body| changes(body)),
            Err(_) => None,
        };
        let any = changes(&url) || !headers.is_empty() || body.is_some();
        Ok(any.then_some(Template { url, headers, body }))
    }

    fn render(&self, request: &RequestSpec, number: u64, seed: u64) -> Result<RequestSpec, String> {
        // A stream of its own for each request: the order in which threads take them changes nothing.
        let mut rng = Xoshiro256PlusPlus::seed_from_u64(seed ^ number.wrapping_mul(0x9e37_79b9_7f4a_7c15));
        let mut rendered = RequestSpec::new(request.method.clone(), &fill(&self.url, number, &mut rng))?;
        rendered.typed_url.clone_from(&request.typed_url);
        rendered.headers = request.headers.clone();
        for (name, value) in &self.headers {
            let value = fill(value, number, &mut rng);
            let value = HeaderValue::from_str(&value)
                .map_err(|_| format!("invalid header field value for {:?}", name.as_str()))?;
            rendered.headers.insert(name.clone(), value);
        }
        rendered.body = match &self.body {
            Some(body) => fill(body, number, &mut rng).into(),
            None => request.body.clone(),
        };
        Ok(rendered)
    }
}

fn pieces(text: &str, lines: Lines<'_>) -> Result<Vec<Piece>, String> {
    let mut pieces = Vec::new();
    let mut rest = text;
    while let Some((before, after)) = rest.split_once("{{") {
        let (inner, after) = after
            .split_once("}}")
            .ok_or_else(|| format!("the placeholder {{{{{after} does not end with }}}}"))?;
        if !before.is_empty() {
            pieces.push(Piece::Text(before.to_owned()));
        }
        pieces.push(placeholder(inner.trim(), lines)?);
        rest = after;
    }
    if !rest.is_empty() {
        pieces.push(Piece::Text(rest.to_owned()));
    }
    Ok(pieces)
}

fn placeholder(inner: &str, lines: Lines<'_>) -> Result<Piece, String> {
    let unknown = || {
        format!(
            "unknown placeholder {{{{{inner}}}}}: there are {{{{n}}}}, {{{{uuid}}}}, {{{{random:LOW:HIGH}}}} and \
             {{{{line:FILE}}}}"
        )
    };
    match inner.split_once(':') {
        None if inner == "n" => Ok(Piece::Number),
        None if inner == "uuid" => Ok(Piece::Uuid),
        Some(("random", range)) => {
            let (low, high) = range.split_once(':').ok_or_else(unknown)?;
            match (low.parse(), high.parse()) {
                (Ok(low), Ok(high)) if low <= high => Ok(Piece::Random(low, high)),
                _ => Err(unknown()),
            }
        }
        Some(("line", file)) => match lines(file)? {
            lines if lines.is_empty() => Err(format!("{file}: no lines in it")),
            lines => Ok(Piece::Line(lines)),
        },
        _ => Err(unknown()),
    }
}

fn fill(pieces: &[Piece], number: u64, rng: &mut Xoshiro256PlusPlus) -> String {
    let mut out = String::new();
    for piece in pieces {
        match piece {
            Piece::Text(text) => out.push_str(text),
            Piece::Number => out.push_str(&number.to_string()),
            Piece::Random(low, high) => {
                // 64 bits over the range: the bias is of no consequence to a load test.
                let drawn = match (high - low).checked_add(1) {
                    Some(width) => low + rng.next_u64() % width,
                    None => rng.next_u64(),
                };
                out.push_str(&drawn.to_string());
            }
            Piece::Uuid => {
                let bits = u128::from(rng.next_u64()) << 64 | u128::from(rng.next_u64());
                // Version 4, variant 1 (RFC 9562, 5.4).
                let bits = bits & !(0xf << 76) & !(0b11 << 62) | 0x4 << 76 | 0b10 << 62;
                let digits = format!("{bits:032x}");
                let parts = [&digits[..8], &digits[8..12], &digits[12..16], &digits[16..20], &digits[20..]];
                out.push_str(&parts.join("-"));
            }
            Piece::Line(lines) => {
                out.push_str(&lines[usize::try_from(number % lines.len() as u64).unwrap_or(0)]);
            }
        }
    }
    out
}
