// The gradient of the two-basin example (toy.js has its equation), where w = (mu, sigma).
//
// Reads w, writes gradient. Runs as one invocation.

struct Well {
    share: f32,
    temperature: f32,
    center: f32,
    spread: f32,
}

@group(0) @binding(0) var<storage, read> w: array<f32, 2>;
@group(0) @binding(1) var<storage, read_write> gradient: array<f32, 2>;

// log(share) - K / temperature
fn log_part(well: Well, mu: f32, sigma: f32) -> f32 {
    let variance = well.spread * well.spread;
    let offset = mu - well.center;
    let divergence = log(well.spread / sigma)
        + (sigma * sigma + offset * offset) / (2.0 * variance) - 0.5;
    return log(well.share) - divergence / well.temperature;
}

fn part_gradient(well: Well, mu: f32, sigma: f32) -> vec2<f32> {
    let variance = well.spread * well.spread;
    return vec2<f32>((mu - well.center) / variance, sigma / variance - 1.0 / sigma)
        / well.temperature;
}

@compute @workgroup_size(1)
fn loss_gradient() {
    let wells = array<Well, 2>(Well(0.7, 3.24, 20.0, 30.0), Well(0.3, 1.44, -20.0, 10.0));
    let mu = w[0];
    let sigma = w[1];
    let first = log_part(wells[0], mu, sigma);
    let second = log_part(wells[1], mu, sigma);
    // Uses the ratio of the exponentials, because both underflow far from the wells.
    let share = 1.0 / (1.0 + exp(second - first));
    let result = share * part_gradient(wells[0], mu, sigma)
        + (1.0 - share) * part_gradient(wells[1], mu, sigma);
    gradient[0] = result.x;
    gradient[1] = result.y;
}
