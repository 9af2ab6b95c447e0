# goals.awk: from the figures of bench_gpu and peer_torch.py (`shape|what|which|number`), what issue and docs promise beside what
# was measured. Prints a table in Markdown and a line that counts. A goal whose figures are missing, or are no positive numbers, is said
# to be not measured; one that is nearer to what is wanted than the noise of its figures (`noise`, a part of one) is said to be so.
BEGIN { FS = "|" }
$4 ~ /^[0-9]+(\.[0-9]*)?([eE][-+]?[0-9]+)?$/ && NF == 4 && $4 + 0 > 0 { figure[$1, $2, $3] = $4 + 0 }

# One goal: `value` as text, met or not; value -1: not measured.
function goal(name, wanted, value, text, least, noise,    how) {
  how = value < 0 ? "not measured" : value >= least ? "met" : "**missed**"
  n_goals[how]++
  if (value >= 0 && noise > 0 && value - least < noise && least - value < noise) how = how ", within the noise"
  printf "| %s | %s | %s | %s |\n", name, wanted, value < 0 ? "" : text, how
}
function value_of(shape, what, which) { return (shape, what, which) in figure ? figure[shape, what, which] : -1 }
function ratio(shape, what, upper, other, lower,    a, b) {
  a = value_of(shape, what, upper)
  b = value_of(shape, other, lower)
  return a < 0 || b < 0 ? -1 : a / b
}
# (b) of (a), measured by turns, with what the figure may be off by.
function beside(shape, name, wanted, what, least,    value, noise, text) {
  value = value_of(shape, what, "ratio")
  noise = value_of(shape, what, "noise")
  text = sprintf("%.2f %%", 100 * value)
  if (noise > 0) text = text sprintf(" ± %.2f", 100 * noise)
  goal(name, wanted, value, text, least, noise)
}
function share(name, wanted, value, least) { goal(name, wanted, value, sprintf("%.1f %%", 100 * value), least, 0) }
function times(name, wanted, value, least) { goal(name, wanted, value, sprintf("%.1fx", value), least, 0) }

END {
  n = split("GPT-2 small|Gemma 2 2B|Llama 3.1 8B", shapes, "|")
  split("1|8|64", streams, "|")
  print "| goal | wanted | measured | |\n| --- | --- | --- | --- |"
  for (i = 1; i <= n; i++)
    for (k = 1; k <= 3; k++)
      beside(shapes[i], shapes[i] ", " streams[k] " streams: (b) of (a)", ">= 97 %", "decode, " streams[k] " streams", 0.97)
  share("Gemma 2 2B, one stream: of the floor", ">= 75 %", ratio("Gemma 2 2B", "decode, 1 streams", "a", "decode, 1 streams", "floor"), 0.75)
  share("Llama 3.1 8B, one stream: of the floor", ">= 80 %", ratio("Llama 3.1 8B", "decode, 1 streams", "a", "decode, 1 streams", "floor"), 0.80)
  one = value_of("GPT-2 small", "decode, 1 streams", "a")
  goal("GPT-2 small, one stream", ">= 7000 tok/s", one, sprintf("%.0f tok/s", one), 7000, 0)
  for (i = 1; i <= n; i++) times(shapes[i] ", 8 streams of one", ">= 6x", ratio(shapes[i], "decode, 8 streams", "a", "decode, 1 streams", "a"), 6)
  for (i = 1; i <= n; i++) beside(shapes[i], shapes[i] ", 256 different edits of none", "> 98 %", "256 edits", 0.98)
  for (i = 1; i <= n; i++)
    for (k = 1; k <= 3; k++) {
      what = "decode, " streams[k] " streams"
      times(shapes[i] ", " streams[k] " streams: eager hooks beaten", ">= 10x", ratio(shapes[i], what, "b", what, "hooks"), 10)
    }
  printf "\ngoals: %d met, %d missed, %d not measured\n", n_goals["met"], n_goals["**missed**"], n_goals["not measured"]
}
