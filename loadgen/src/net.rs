//! Sockets and real time.

mod clock;
mod dial;
mod http1;
mod http2;
pub mod response;
mod target;
mod tls;
mod watch;
mod wire;

pub use clock::RealTime;
pub use dial::{Dialer, Pin, Proxy, Route};
pub use target::{Counts, GroupBy, SocketTarget, TargetOptions};
pub use tls::{Trust, client_config};
