;; Traps: its execution ends as failed, with the reason "trap".
(module
  (func $deliberately (unreachable))
  (func (export "_start") (call $deliberately)))
