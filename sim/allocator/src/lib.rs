//! The allocator of programs that name this crate (`use allocator as _;`): runs allocate much and little at a time, and a
//! sixth of their time goes with the C library's. A crate of its own, as the functions that all allocations go through
//! are compiled as the crate with the allocator is.

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;
