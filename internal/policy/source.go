package policy

import (
	"context"
	"crypto/sha256"
	"encoding/json"
	"slices"
)

// Source is a place that holds documents.
type Source interface {
	// Watch publishes the source's whole state, first as soon as it can and then after each change, until ctx ends or the
	// source cannot be read; it then returns why. It calls publish from one goroutine at a time, and not after it returned.
	// The caller calls Watch again, after a pause if it failed; each call begins with the whole state.
	//
	// publish never waits. Of several states only the newest may be looked at, so a source need not save calls; it may gather what
	// changes together where making a Snapshot is expensive. What was published is not changed any more.
	Watch(ctx context.Context, publish func(Snapshot)) error
}

type staticSource Snapshot

// StaticSource is a source whose documents never change.
func StaticSource(origin string, documents ...Document) Source {
	return staticSource{Documents: documents, Origin: origin}
}

func (s staticSource) Watch(ctx context.Context, publish func(Snapshot)) error {
	publish(Snapshot(s))
	<-ctx.Done()
	return ctx.Err()
}

// check moves the documents that are not valid in themselves to the problems. Parse has seen to this for its own; a source
// may make others.
func check(s Snapshot) Snapshot {
	checked := Snapshot{Documents: s.Documents, Problems: slices.Clone(s.Problems), Origin: s.Origin}
	if !slices.ContainsFunc(s.Documents, func(d Document) bool { return !d.checked }) {
		return checked
	}
	checked.Documents = make([]Document, 0, len(s.Documents))
	for _, d := range s.Documents {
		d, found := settle(d)
		checked.Problems = append(checked.Problems, found...)
		if len(found) == 0 {
			checked.Documents = append(checked.Documents, d)
		}
	}
	return checked
}

// settle checks d alone and brings its values into their normal forms, on a copy of what the source may share.
func settle(d Document) (Document, []Problem) {
	if d.checked {
		return d, nil
	}
	if !d.single() {
		return d, []Problem{{File: d.File, Line: d.Line, Message: "a document is one backend, one routing policy, one price or one mark"}}
	}
	d = d.own()
	var found []Problem
	d.content().check(flaws{func(_, message string) {
		p := Problem{Kind: d.Kind(), File: d.File, Line: d.Line, Message: message}
		if idForm.MatchString(d.ID()) {
			p.ID = d.ID()
		}
		found = append(found, p)
	}})
	if len(found) == 0 {
		d.seal()
	}
	return d, found
}

// seal says that d is valid and in its normal form, and hashes its content, which is all but the place where it stands.
func (d *Document) seal() {
	content, err := json.Marshal(Document{Backend: d.Backend, Policy: d.Policy, Price: d.Price, Mark: d.Mark})
	if err != nil { // Strings, numbers, times and maps of strings: nothing in them can fail.
		panic("policy: " + err.Error())
	}
	sum := sha256.Sum256(content)
	copy(d.sum[:], sum[:])
	d.checked = true
}

// single says that d is one document and not none or several in one.
func (d Document) single() bool {
	parts := 0
	for _, there := range [...]bool{d.Backend != nil, d.Policy != nil, d.Price != nil, d.Mark != nil} {
		if there {
			parts++
		}
	}
	return parts == 1
}
