#[derive(Debug)] pub struct FsDisk;
