//! SplitMix64 (Steele, Lea & Flood 2014).

/// Increment of the state.
pub(crate) const STEP: u64 = 0x9e37_79b9_7f4a_7c15;

/// Returns the output that follows `state`.
pub(crate) fn scrambled(state: u64) -> u64 {
    let x = state.wrapping_add(STEP);
    let x = (x ^ (x >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let x = (x ^ (x >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    x ^ (x >> 31)
}
