//! The cookies that a client keeps (RFC 6265), as far as one host's answers need it: names, values and ages.

use std::collections::BTreeMap;
use std::time::Duration;

use http::header::{COOKIE, SET_COOKIE};
use http::{HeaderMap, HeaderValue};

/// One client's cookies, for the one host that it asks.
#[derive(Debug, Default)]
pub(super) struct Cookies(BTreeMap<String, Cookie>);

#[derive(Debug)]
struct Cookie {
    value: String,
    /// When it is dropped; a cookie without an age stays as long as the client.
    end: Option<Duration>,
}

impl Cookies {
    /// Takes over what an answer at `now` sets, and drops what it calls back with an age of zero or less.
    pub(super) fn keep(&mut self, answer: &HeaderMap, now: Duration) {
        for line in answer.get_all(SET_COOKIE).iter().filter_map(|line| line.to_str().ok()) {
            let mut parts = line.split(';').map(str::trim);
            let Some((name, value)) = parts.next().and_then(|pair| pair.split_once('=')) else { continue };
            let age = parts
                .filter_map(|part| part.split_once('='))
                .filter(|(attribute, _)| attribute.eq_ignore_ascii_case("max-age"))
                .find_map(|(_, seconds)| seconds.trim().parse::<i64>().ok());
            let end = match age.map(u64::try_from) {
                Some(Err(_) | Ok(0)) => {
                    self.0.remove(name);
                    continue;
                }
                Some(Ok(seconds)) => Some(now.saturating_add(Duration::from_secs(seconds))),
                None => None,
            };
            self.0.insert(name.to_owned(), Cookie { value: value.to_owned(), end });
        }
    }

    /// Adds the cookies to a request that is sent at `now`.
    pub(super) fn send(&mut self, request: &mut HeaderMap, now: Duration) {
        self.0.retain(|_, cookie| cookie.end.is_none_or(|end| now < end));
        let own = request.get(COOKIE).and_then(|line| line.to_str().ok()).map(str::to_owned);
        let kept = self.0.iter().map(|(name, cookie)| format!("{name}={}", cookie.value));
        let line = own.into_iter().chain(kept).collect::<Vec<_>>().join("; ");
        if !line.is_empty()
            && let Ok(line) = HeaderValue::from_str(&line)
        {
            request.insert(COOKIE, line);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sent(cookies: &mut Cookies, now: u64) -> String {
        let mut request = HeaderMap::new();
        request.insert(COOKIE, HeaderValue::from_static("own=1"));
        cookies.send(&mut request, Duration::from_secs(now));
        request[COOKIE].to_str().unwrap().to_owned()
    }

    #[test]
    fn cookies_are_kept_for_their_age_and_called_back() {
        let mut cookies = Cookies::default();
        let mut answer = HeaderMap::new();
        answer.append(SET_COOKIE, HeaderValue::from_static("a=x; Max-Age=10"));
        answer.append(SET_COOKIE, HeaderValue::from_static("b=y=z; Path=/; HttpOnly"));
        answer.append(SET_COOKIE, HeaderValue::from_static("nonsense"));
        cookies.keep(&answer, Duration::from_secs(5));
        assert_eq!(sent(&mut cookies, 14), "own=1; a=x; b=y=z");
        assert_eq!(sent(&mut cookies, 15), "own=1; b=y=z");
        answer.clear();
        answer.append(SET_COOKIE, HeaderValue::from_static("b=y=z; max-age=-1"));
        cookies.keep(&answer, Duration::from_secs(15));
        assert_eq!(sent(&mut cookies, 15), "own=1");
    }
}
