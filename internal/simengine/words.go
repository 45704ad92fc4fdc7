package simengine

// openings and patterns have blanks between dollar signs; t is a topic of the prompt. Each has a space before it,
// and each opening then a capital letter.
var openings = []string{
	" Here is a $adjective$ way to think about $t$.",
	" Good question: $t$ is mostly a matter of $adjective$ $noun$.",
	" Let us begin with $t$ and the $noun$ behind it.",
	" There is a $adjective$ answer, and it starts with $t$.",
	" Think of $t$ as a $noun$ that you can $verb$.",
	" Certainly, $t$ deserves a $adjective$ look.",
	" Most people who $verb$ $t$ find a $adjective$ $noun$ first.",
	" In short, $t$ rewards $adjective$ $noun$.",
}

var patterns = []string{
	" A $adjective$ $noun$ helps more than a $adjective$ one.",
	" First $verb$ the $noun$, then $verb$ what is left of $t$.",
	" The $noun$ and the $noun$ belong together, as $t$ shows.",
	" When the $noun$ is $adjective$, the $noun$ follows by itself.",
	" You can $verb$ each $noun$ on its own, one small step at a time.",
	" Nothing about $t$ has to be $adjective$ from the start.",
	" It often pays to $verb$ the $noun$ before you $verb$ the $noun$.",
	" Some call this a $adjective$ $noun$, others simply call it $t$.",
	" Keep the $noun$ $adjective$ and the rest stays easy to $verb$.",
	" With $t$ in mind, every $noun$ becomes a little more $adjective$.",
}

var blanks = map[string][]string{
	"t": {"the question", "this idea", "the matter", "that thought"},
	"noun": {
		"garden", "river", "pattern", "harbour", "lantern", "bridge", "library", "compass", "window", "meadow", "melody",
		"workshop", "journey", "structure", "signal", "balance", "detail", "beginning", "conversation", "reason",
	},
	"adjective": {
		"calm", "careful", "bright", "simple", "patient", "generous", "quiet", "precise", "frank", "gentle", "curious",
		"steady", "thorough", "modest", "practical", "relaxed",
	},
	"verb": {
		"follow", "describe", "measure", "arrange", "notice", "explore", "compare", "repair", "remember", "explain",
		"gather", "understand",
	},
}

// dull words make no topic. The roles are among them because a rendered conversation names them.
var dull = func() map[string]bool {
	set := map[string]bool{}
	for _, word := range []string{
		"system", "user", "assistant", "developer", "tool", "about", "also", "been", "could", "does", "from", "give", "have",
		"into", "just", "make", "more", "please", "should", "some", "tell", "than", "that", "their", "them", "then", "there",
		"hello", "thanks", "these", "they", "this", "were", "what", "when", "where", "which", "will", "with", "would", "write", "your", "very",
	} {
		set[word] = true
	}
	return set
}()
