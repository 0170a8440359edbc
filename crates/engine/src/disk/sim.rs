#[derive(Debug)] pub struct SimDisk; #[derive(Debug)] pub struct Faults;
