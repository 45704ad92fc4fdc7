package upstream

// implementations are the two ways to a plain backend. Every test of a Transport runs on both.
var implementations = map[string]func(Config) (Transport, error){
	"direct":   Direct,
	"standard": Standard,
}
