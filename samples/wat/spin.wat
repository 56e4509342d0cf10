;; Never ends by itself: its execution ends as timeout when its time is over, or as cancelled.
(module
  (func (export "_start") (loop $for_ever (br $for_ever))))
