package policy

import "context"

// Source is a place that holds documents.
type Source interface {
	// Watch publishes the source's whole state, first as soon as it can and then after each change, until ctx ends or the
	// source cannot be read; it then returns why. It calls publish from one goroutine at a time, and not after it returned.
	// The caller calls Watch again, after a pause if it failed; each call begins with the whole state.
	Watch(ctx context.Context, publish func(Snapshot)) error
}

type staticSource Snapshot

// StaticSource is a source whose documents never change.
func StaticSource(origin string, documents ...Document) Source {
	return staticSource{Documents: documents, Origin: origin}
}

func (s staticSource) Watch(ctx context.Context, publish func(Snapshot)) error {
	publish(check(Snapshot(s)))
	<-ctx.Done()
	return ctx.Err()
}

// check moves the documents that are not valid in themselves to the problems: those that no parser has seen.
func check(s Snapshot) Snapshot {
	checked := Snapshot{Problems: s.Problems, Origin: s.Origin}
	for _, d := range s.Documents {
		good := true
		d = d.clone()
		d.check(flaws{func(_, message string) {
			good = false
			p := Problem{Kind: d.Kind(), File: d.File, Line: d.Line, Message: message}
			if idForm.MatchString(d.ID()) {
				p.ID = d.ID()
			}
			checked.Problems = append(checked.Problems, p)
		}})
		if good {
			checked.Documents = append(checked.Documents, d)
		}
	}
	return checked
}

// clone copies the part of d that check brings into its normal form.
func (d Document) clone() Document {
	if d.Backend != nil {
		b := *d.Backend
		d.Backend = &b
	}
	return d
}
