//! Sockets and real time.
