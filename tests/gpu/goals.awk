# goals.awk: from the figures of bench_gpu and peer_torch.py (`shape|what|which|number`), what issue and docs promise beside what
# was measured. Prints a table in Markdown; a goal whose figures are missing is said to be not measured.
BEGIN { FS = "|" }
{ figure[$1, $2, $3] = $4; known[$1] = 1 }

# One goal: `value` as text, met or not; value -1: not measured.
function goal(name, wanted, value, text, met) {
  if (value < 0) printf "| %s | %s | not measured | |\n", name, wanted
  else printf "| %s | %s | %s | %s |\n", name, wanted, text, met ? "met" : "**missed**"
}
function ratio(shape, what, upper, other, lower) {
  if (!((shape, what, upper) in figure) || !((shape, other, lower) in figure) || figure[shape, other, lower] <= 0) return -1
  return figure[shape, what, upper] / figure[shape, other, lower]
}
function share(name, wanted, value, least) { goal(name, wanted, value, sprintf("%.1f %%", 100 * value), value >= least) }
function times(name, wanted, value, least) { goal(name, wanted, value, sprintf("%.1fx", value), value >= least) }

END {
  n = split("GPT-2 small|Gemma 2 2B|Llama 3.1 8B", shapes, "|")
  split("1|8|64", streams, "|")
  print "| goal | wanted | measured | |\n| --- | --- | --- | --- |"
  for (i = 1; i <= n; i++)
    for (k = 1; k <= 3; k++) {
      what = "decode, " streams[k] " streams"
      share(shapes[i] ", " streams[k] " streams: (b) of (a)", ">= 97 %", ratio(shapes[i], what, "b", what, "a"), 0.97)
    }
  share("Gemma 2 2B, one stream: of the floor", ">= 75 %", ratio("Gemma 2 2B", "decode, 1 streams", "a", "decode, 1 streams", "floor"), 0.75)
  share("Llama 3.1 8B, one stream: of the floor", ">= 80 %", ratio("Llama 3.1 8B", "decode, 1 streams", "a", "decode, 1 streams", "floor"), 0.80)
  one = (("GPT-2 small", "decode, 1 streams", "a") in figure) ? figure["GPT-2 small", "decode, 1 streams", "a"] : -1
  goal("GPT-2 small, one stream", ">= 7000 tok/s", one, sprintf("%.0f tok/s", one), one >= 7000)
  for (i = 1; i <= n; i++) times(shapes[i] ", 8 streams of one", ">= 6x", ratio(shapes[i], "decode, 8 streams", "a", "decode, 1 streams", "a"), 6)
  for (i = 1; i <= n; i++) share(shapes[i] ", 256 different edits of none", ">= 98 %", ratio(shapes[i], "256 edits", "b", "256 edits", "a"), 0.98)
  for (i = 1; i <= n; i++)
    for (k = 1; k <= 3; k++) {
      what = "decode, " streams[k] " streams"
      times(shapes[i] ", " streams[k] " streams: eager hooks beaten", ">= 10x", ratio(shapes[i], what, "b", what, "hooks"), 10)
    }
}
