//! stub
#[derive(Debug, Clone, Copy)]
#[allow(missing_docs)]
pub enum OpCode {
    Text = 1,
    Binary = 2,
}
#[allow(missing_docs)]
pub fn write_header(out: &mut Vec<u8>, opcode: OpCode, fin: bool, rsv1: bool, len: usize) {
    out.push(opcode as u8 | u8::from(fin) << 7 | u8::from(rsv1) << 6);
    if len < 126 {
        out.push(len as u8)
    } else if len < 65536 {
        out.push(126);
        out.extend((len as u16).to_be_bytes())
    } else {
        out.push(127);
        out.extend((len as u64).to_be_bytes())
    }
}
