package admin

import "github.com/ai-aas/api-router/internal/adminapi"

// fleet answers what the router serves by: the table in short, and every backend.
func (a *Admin) fleet(*call) (reply, error) {
	answer, s := adminapi.Fleet{Backends: []adminapi.Backend{}}, sight{table: a.Table()}
	if t := s.table; t != nil {
		answer.Revision, answer.Origin, answer.Since = t.Revision(), t.Origin(), t.LoadedAt()
		answer.Policies, answer.Problems = t.Routes(), len(t.Problems())
	}
	for _, b := range a.Fleet() {
		answer.Backends = append(answer.Backends, s.backend(b))
	}
	return reply{body: answer}, nil
}

// openAPI answers the description of this API.
func (a *Admin) openAPI(*call) (reply, error) {
	return reply{text: a.Description, kind: "application/yaml"}, nil
}
