package app

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"github.com/ai-aas/api-router/internal/policy"
)

// upgradeReason is what the history says of a policy that was upgraded.
const upgradeReason = "upgraded from the form of the earlier service"

// upgrade turns every policy of the earlier service into our form, at the key of its id. One that cannot be read stays as it is and is
// named; it is as good or bad as before. It returns ErrFound then.
func (s *seeding) upgrade(ctx context.Context) error {
	var all []policy.Stored
	err := s.again(ctx, func(ctx context.Context) (err error) {
		all, err = s.book.Read(ctx, policy.KindRoutingPolicy, "")
		return err
	})
	if err != nil {
		return fmt.Errorf("the policies cannot be read: %w", err)
	}
	upgraded, left := 0, 0
	for _, stored := range all {
		key := s.key(stored)
		if !stored.Legacy && !strings.Contains(key, "/") {
			continue
		}
		id, problems, err := s.replace(ctx, key)
		switch {
		case err != nil:
			return fmt.Errorf("%s cannot be upgraded, and what comes after it was not: %w", stored.Place, err)
		case len(problems) > 0:
			left++
			for _, problem := range problems {
				s.say("left", stored.Kind, stored.ID, ": "+problem.String())
			}
		case id == key:
			upgraded++
			s.say("upgraded", stored.Kind, id, "")
		case id != "":
			upgraded++
			s.say("upgraded", stored.Kind, id, " (from the key "+key+")")
		}
	}
	fmt.Fprintf(s.out, "%d policies of the earlier service upgraded, %d left as they are%s\n", upgraded, left, s.note())
	if left > 0 {
		return ErrFound
	}
	return nil
}

// sameID is why a policy is left.
const sameID = "another policy has the same id and says something else: delete one of the two"

// replace writes the policy at a key in our form at the key of its id, and sees that it stands nowhere else. The id is empty when there
// was nothing to do any more.
func (s *seeding) replace(ctx context.Context, key string) (id string, problems []policy.Problem, err error) {
	err = s.again(ctx, func(ctx context.Context) (err error) {
		id, problems, err = s.replaceOnce(ctx, key)
		return err
	})
	return id, problems, err
}

func (s *seeding) replaceOnce(ctx context.Context, key string) (id string, problems []policy.Problem, err error) {
	const kind = policy.KindRoutingPolicy
	stored, err := s.book.Read(ctx, kind, key)
	if errors.Is(err, policy.ErrNotFound) || err == nil && (s.key(stored[0]) != key || !stored[0].Legacy && !strings.Contains(key, "/")) {
		return "", nil, nil // Somebody else was faster.
	}
	if err != nil {
		return "", nil, err
	}
	document, problems := s.parse(stored[0])
	if len(problems) > 0 {
		return "", problems, nil
	}
	id = document.ID()
	content, err := policy.JSON(document)
	if err != nil {
		return "", nil, err
	}
	w := policy.Write{Kind: kind, ID: id, Content: content, If: new(int64), Actor: seedActor, Reason: upgradeReason}
	switch there, err := s.book.Read(ctx, kind, id); {
	case errors.Is(err, policy.ErrNotFound):
	case err != nil:
		return "", nil, err
	case s.key(there[0]) != key && !s.means(there[0], document):
		return "", []policy.Problem{{Kind: kind, ID: id, File: stored[0].Place, Message: sameID}}, nil
	default:
		w.If = &there[0].Revision
	}
	if err := s.do(ctx, w); err != nil || key == id {
		return id, nil, err
	}
	switch _, err := s.book.Read(ctx, kind, key); {
	case errors.Is(err, policy.ErrNotFound): // The book has moved it, as etcd's does.
		return id, nil, nil
	case err != nil:
		return "", nil, err
	default:
		return id, nil, s.do(ctx, policy.Write{Kind: kind, ID: key, If: &stored[0].Revision, Actor: seedActor, Reason: upgradeReason})
	}
}
