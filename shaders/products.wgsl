// Sums of products that neither overflow nor underflow. Products of large and of small exponents are summed separately,
// times a power of two; subnormal factors count as zero.

// Products with an exponent above this are large, and with one below its negative small.
const PRODUCT_LARGE: i32 = 60;
// Large products are summed times 2^-PRODUCT_SHIFT, small ones times 2^PRODUCT_SHIFT.
const PRODUCT_SHIFT: i32 = 160;

// The exponents of four numbers: e if a number is s 2^e with 1 <= |s| < 2.
fn exponents(x: vec4<f32>) -> vec4<i32> {
    return vec4<i32>((bitcast<vec4<u32>>(x) >> vec4<u32>(23u)) & vec4<u32>(0xffu)) - vec4<i32>(127);
}

// The significands s of four numbers, with their signs; 0 of zeros and of subnormal numbers.
fn significands(x: vec4<f32>) -> vec4<f32> {
    let bits = (bitcast<vec4<u32>>(x) & vec4<u32>(0x807fffffu)) | vec4<u32>(0x3f800000u);
    return select(bitcast<vec4<f32>>(bits), vec4<f32>(), exponents(x) == vec4<i32>(-127));
}

// 2^e, with e limited to the range of normal numbers.
fn powers(e: vec4<i32>) -> vec4<f32> {
    let limited = clamp(e, vec4<i32>(-126), vec4<i32>(127));
    return bitcast<vec4<f32>>(vec4<u32>(limited + vec4<i32>(127)) << vec4<u32>(23u));
}
