//! Long fills and copies of memory, cut into pieces between which a guest can be stopped.
//!
//! One `memory.fill` or `memory.copy` is one call into the engine, which nothing can interrupt; over pages that were
//! never touched, on a busy machine, it was seen to take eleven milliseconds for each megabyte. So while a module is
//! compiled, each of them whose length is not known to be short becomes
//!
//! ```text
//!   length, source or value, destination ─► globals of the instance
//!   longer than a piece, and inside the memory?   loop: check; one piece; until a piece or less is left
//!   the operator itself, for what is left
//! ```
//! What reaches outside of the memory is left whole: it traps before a byte is written, as the specification has it.
//! A copy to a higher address goes from the end, so that no piece overwrites what a later one reads.

use wasmer::sys::{
    MiddlewareReaderState,
    wasmparser::{BlockType, Operator},
};

/// Bytes of a piece: a millisecond or two where every page of it is new.
const PIECE: i32 = 128 << 10;

/// Indices of the globals that hold the operands.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Operands {
    pub(crate) destination: u32,
    /// The source of a copy, the value of a fill.
    pub(crate) source: u32,
    pub(crate) length: u32,
}

/// Puts the checks for the stop flag in.
type Check<'c, 'a> = &'c dyn Fn(&mut MiddlewareReaderState<'a>);

/// Is the length that was just pushed known, and short?
pub(crate) fn is_short(pushed: Option<i32>) -> bool {
    // The length is unsigned.
    pushed.is_some_and(|length| (0..=PIECE).contains(&length))
}

/// A fill of memory `mem`; its operands are on the stack.
pub(crate) fn fill<'a>(mem: u32, at: Operands, check: Check<'_, 'a>, state: &mut MiddlewareReaderState<'a>) {
    keep(at, state);
    state.push_operator(BLOCK);
    branch_if(Operator::I32LeU, at, state);
    leave_if_outside(at.destination, mem, at, state);
    state.push_operator(LOOP);
    check(state);
    state.extend([
        get(at.destination),
        get(at.source),
        Operator::I32Const { value: PIECE },
        Operator::MemoryFill { mem },
    ]);
    add(at.destination, PIECE, state);
    add(at.length, -PIECE, state);
    branch_if(Operator::I32GtU, at, state);
    state.extend([Operator::End, Operator::End]);
    state.extend([get(at.destination), get(at.source), get(at.length), Operator::MemoryFill { mem }]);
}

/// A copy from one memory to another, or inside of one; its operands are on the stack.
pub(crate) fn copy<'a>(
    (src_mem, dst_mem): (u32, u32),
    at: Operands,
    check: Check<'_, 'a>,
    state: &mut MiddlewareReaderState<'a>,
) {
    let copy = Operator::MemoryCopy { dst_mem, src_mem };
    keep(at, state);
    state.push_operator(BLOCK);
    branch_if(Operator::I32LeU, at, state);
    leave_if_outside(at.destination, dst_mem, at, state);
    leave_if_outside(at.source, src_mem, at, state);
    state.extend([get(at.destination), get(at.source), Operator::I32LeU]);
    state.extend([Operator::If { blockty: BlockType::Empty }, LOOP]);
    check(state);
    state.extend([get(at.destination), get(at.source), Operator::I32Const { value: PIECE }, copy.clone()]);
    add(at.destination, PIECE, state);
    add(at.source, PIECE, state);
    add(at.length, -PIECE, state);
    branch_if(Operator::I32GtU, at, state);
    state.extend([Operator::End, Operator::Else, LOOP]);
    check(state);
    add(at.length, -PIECE, state);
    for start in [at.destination, at.source] {
        state.extend([get(start), get(at.length), Operator::I32Add]);
    }
    state.extend([Operator::I32Const { value: PIECE }, copy.clone()]);
    branch_if(Operator::I32GtU, at, state);
    state.extend([Operator::End, Operator::End, Operator::End]);
    state.extend([get(at.destination), get(at.source), get(at.length), copy]);
}

const BLOCK: Operator<'static> = Operator::Block { blockty: BlockType::Empty };
const LOOP: Operator<'static> = Operator::Loop { blockty: BlockType::Empty };

fn get(global_index: u32) -> Operator<'static> {
    Operator::GlobalGet { global_index }
}

fn set(global_index: u32) -> Operator<'static> {
    Operator::GlobalSet { global_index }
}

/// From the stack to the globals.
fn keep(at: Operands, state: &mut MiddlewareReaderState<'_>) {
    state.extend([set(at.length), set(at.source), set(at.destination)]);
}

/// Out of a block, or around a loop, by how the length compares with a piece.
fn branch_if(compare: Operator<'static>, at: Operands, state: &mut MiddlewareReaderState<'_>) {
    let piece = Operator::I32Const { value: PIECE };
    state.extend([get(at.length), piece, compare, Operator::BrIf { relative_depth: 0 }]);
}

/// In 64 bits, where the sum cannot overflow.
fn leave_if_outside(start: u32, mem: u32, at: Operands, state: &mut MiddlewareReaderState<'_>) {
    state.extend([
        get(start),
        Operator::I64ExtendI32U,
        get(at.length),
        Operator::I64ExtendI32U,
        Operator::I64Add,
        Operator::MemorySize { mem },
        Operator::I64ExtendI32U,
        Operator::I64Const { value: 16 },
        Operator::I64Shl,
        Operator::I64GtU,
        Operator::BrIf { relative_depth: 0 },
    ]);
}

fn add(global: u32, value: i32, state: &mut MiddlewareReaderState<'_>) {
    state.extend([get(global), Operator::I32Const { value }, Operator::I32Add, set(global)]);
}
