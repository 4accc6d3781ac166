//! WSAM's relatives in the oracle.

#[path = "family/faults.rs"]
mod faults;
#[path = "family/planted.rs"]
mod planted;
#[path = "family/staged.rs"]
mod staged;

use crate::EXACT;
use crate::common::family::{self, FamilyGolden};
use crate::common::family_replay::{oracle, replay_family};
use crate::common::golden;

fn goldens() -> Vec<FamilyGolden> {
    let goldens = family::load().unwrap();
    // A folder of one's own may hold WSAM's trajectories only.
    let own_folder = golden::is_own_folder();
    assert!(own_folder || goldens.len() >= 9, "{} files", goldens.len());
    goldens
}

#[test]
fn family_files_are_reproduced() {
    for golden in goldens() {
        let worst = replay_family(&golden, &mut oracle(&golden), EXACT).unwrap();
        let place = worst.place.map_or_else(String::new, |p| p.to_string());
        println!(
            "{}: {:.3} of the tolerance, relative {:.1e}; {place}",
            golden.file, worst.score, worst.relative
        );
    }
}
