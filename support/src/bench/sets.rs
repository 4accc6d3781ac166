//! Parameter sets of the benchmarks.

/// Lengths of a model's parameters, in module order.
pub struct Set {
    pub name: &'static str,
    pub lens: Vec<u64>,
}

pub fn sets() -> Vec<Set> {
    vec![
        Set { name: "ResNet-50", lens: resnet_50() },
        Set { name: "ResNet-18 (CIFAR)", lens: resnet_18_cifar() },
        Set { name: "ViT-B/16", lens: vit_b_16() },
        Set { name: "GPT-2 124M", lens: gpt_2() },
        Set { name: "1000 x 1000", lens: vec![1000; 1000] },
        Set { name: "134M + 3", lens: vec![134_217_728 + 3] },
    ]
}

/// He et al. 2016, bottleneck blocks 3-4-6-3, 1000 classes.
fn resnet_50() -> Vec<u64> {
    let mut lens = vec![64 * 3 * 49, 64, 64];
    let mut channels = 64;
    for (blocks, middle) in [(3, 64), (4, 128), (6, 256), (3, 512)] {
        let out = 4 * middle;
        for block in 0..blocks {
            lens.extend([channels * middle, middle, middle]);
            lens.extend([middle * middle * 9, middle, middle]);
            lens.extend([middle * out, out, out]);
            if block == 0 {
                lens.extend([channels * out, out, out]);
            }
            channels = out;
        }
    }
    lens.extend([2048 * 1000, 1000]);
    lens
}

/// ResNet-18 with a 3x3 stem and 10 classes.
fn resnet_18_cifar() -> Vec<u64> {
    let mut lens = vec![64 * 3 * 9, 64, 64];
    let mut channels = 64;
    for out in [64, 128, 256, 512] {
        for block in 0..2 {
            lens.extend([channels * out * 9, out, out, out * out * 9, out, out]);
            if block == 0 && channels != out {
                lens.extend([channels * out, out, out]);
            }
            channels = out;
        }
    }
    lens.extend([512 * 10, 10]);
    lens
}

/// Twelve pre-norm blocks of width `width`: two norms, fused qkv, projection, two-layer MLP.
fn blocks(lens: &mut Vec<u64>, width: u64) {
    for _ in 0..12 {
        lens.extend([width, width]);
        lens.extend([width * 3 * width, 3 * width, width * width, width]);
        lens.extend([width, width]);
        lens.extend([width * 4 * width, 4 * width, 4 * width * width, width]);
    }
    lens.extend([width, width]);
}

/// Dosovitskiy et al. 2021: 197 tokens, 16x16 patches, 1000 classes.
fn vit_b_16() -> Vec<u64> {
    let mut lens = vec![768, 197 * 768, 768 * 3 * 256, 768];
    blocks(&mut lens, 768);
    lens.extend([768 * 1000, 1000]);
    lens
}

/// Radford et al. 2019, the smallest; the output layer is tied to the embedding.
fn gpt_2() -> Vec<u64> {
    let mut lens = vec![50_257 * 768, 1024 * 768];
    blocks(&mut lens, 768);
    lens
}
