//! What a run shall do.

use std::time::Duration;

use crate::Arrivals;

/// How many requests, over how many connections, how fast, how long.
#[derive(Clone, Debug)]
pub struct Plan {
    /// Connections; with a closed model also the number of workers, each of which sends one request at a time.
    pub connections: usize,
    /// Requests in all. Closed models send `requests / connections` per worker and drop the remainder, as hey does;
    /// open models send exactly this many.
    pub requests: Option<u64>,
    /// When to stop sending; requests on their way are waited for. Ends a run together with
    /// [`requests`](Plan::requests), whichever comes first.
    pub duration: Option<Duration>,
    /// When requests are sent.
    pub pace: Pace,
    /// Requests that are due before this are sent but neither recorded nor counted:
    /// [`requests`](Plan::requests) and [`duration`](Plan::duration) begin after it.
    pub warmup: Duration,
    /// With a closed model: the workers begin one after the other, evenly over this time.
    pub ramp: Duration,
}

/// When requests are sent.
#[derive(Clone, Debug)]
pub enum Pace {
    /// Each worker sends its next request as soon as the last is answered.
    Unlimited,
    /// Closed model: each worker waits for its own ticker of this period before each request, the first one
    /// included. A tick that comes while the worker is busy is kept, further ones are dropped (hey's `-q`).
    PerWorker(Duration),
    /// Open model: requests are due at times of their own, whatever the answers do; a request that finds no free
    /// connection waits, and its latency counts from when it was due.
    Open(Arrivals),
}

impl Default for Plan {
    /// hey's defaults: 200 requests over 50 connections, unlimited.
    fn default() -> Self {
        Plan {
            connections: 50,
            requests: Some(200),
            duration: None,
            pace: Pace::Unlimited,
            warmup: Duration::ZERO,
            ramp: Duration::ZERO,
        }
    }
}
