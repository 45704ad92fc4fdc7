package userorg

import (
	"context"
	"errors"
	"fmt"

	"github.com/ai-aas/api-router/internal/auth"
	"github.com/ai-aas/api-router/internal/fault"
)

// Try asks once, within the timeout, whose a key is that was made up for the question, and says what is wrong with the service or with its answer.
// Nil: it says that it does not know the key. The breaker and the metrics do not hear of it.
func (s *Service) Try(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, s.Timeout)
	defer cancel()
	_, err := s.ask(ctx, auth.NewKey().Reveal())
	refusal, refused := errors.AsType[*fault.Error](err)
	switch {
	case err == nil || refused && refusal.Code == fault.PermissionDenied:
		return fmt.Errorf("%w: it calls a key valid that nobody has", errAnswer)
	case refused && refusal.Code != fault.InvalidAPIKey:
		return fmt.Errorf("%w: it says %s of a key that nobody has", errAnswer, refusal.Code)
	case refused:
		return nil
	}
	return err
}
