package adminapi

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"net/url"
	"strconv"
)

// If is the condition of a change, and why it is made.
type If struct {
	// Revision is the one that the document must have; 0: there must be none. Nil: whatever it has.
	Revision *int64
	// Reason goes into the history.
	Reason string
}

func (i If) header() http.Header {
	h := make(http.Header)
	switch {
	case i.Revision == nil:
	case *i.Revision == 0:
		h.Set("If-None-Match", "*")
	default:
		h.Set("If-Match", strconv.Quote(strconv.FormatInt(*i.Revision, 10)))
	}
	return h
}

func (i If) query() url.Values {
	if i.Reason == "" {
		return nil
	}
	return url.Values{"reason": {i.Reason}}
}

// List returns the documents of a collection; with invalid, only those that are not used as they are written.
func (c *Client) List(ctx context.Context, collection string, invalid bool) (List, error) {
	r := request{method: http.MethodGet, path: []string{collection}}
	if invalid {
		r.query = url.Values{"invalid": {"true"}}
	}
	return ask[List](ctx, c, r)
}

// Get returns one document.
func (c *Client) Get(ctx context.Context, collection, id string) (Document, error) {
	return ask[Document](ctx, c, request{method: http.MethodGet, path: []string{collection, id}})
}

// Put writes one document, given as YAML or JSON.
func (c *Client) Put(ctx context.Context, collection, id string, document []byte, when If) (Written, error) {
	return ask[Written](ctx, c, request{
		method: http.MethodPut, path: []string{collection, id}, query: when.query(), header: when.header(), kind: yamlType, body: document,
	})
}

// Delete deletes a document and returns it.
func (c *Client) Delete(ctx context.Context, collection, id string, when If) (Written, error) {
	return ask[Written](ctx, c, request{method: http.MethodDelete, path: []string{collection, id}, query: when.query(), header: when.header()})
}

// History returns a page of the changes of one document.
func (c *Client) History(ctx context.Context, collection, id string, page HistoryPage) (History, error) {
	return ask[History](ctx, c, request{method: http.MethodGet, path: []string{collection, id, "history"}, query: page.query()})
}

func (p HistoryPage) query() url.Values {
	query := limited(p.Limit)
	if p.Before != "" {
		if query == nil {
			query = url.Values{}
		}
		query.Set("before", p.Before)
	}
	return query
}

// Rollback writes a document as it was at one of its revisions, also after it was deleted.
func (c *Client) Rollback(ctx context.Context, collection, id string, to Rollback) (Written, error) {
	return post[Written](ctx, c, to, collection, id, "rollback")
}

// Validate says what is wrong with documents, given as YAML or JSON. It writes nothing.
func (c *Client) Validate(ctx context.Context, documents []byte) (Validation, error) {
	return ask[Validation](ctx, c, request{method: http.MethodPost, path: []string{"validate"}, kind: yamlType, body: documents})
}

// Diff says what writing documents, given as YAML or JSON, would change. It writes nothing.
func (c *Client) Diff(ctx context.Context, documents []byte) (Diff, error) {
	return ask[Diff](ctx, c, request{method: http.MethodPost, path: []string{"diff"}, kind: yamlType, body: documents})
}

// Mark sets a mark. One target has one mark: it takes the place of an earlier one.
func (c *Client) Mark(ctx context.Context, mark MarkRequest) (Written, error) {
	return post[Written](ctx, c, mark, Marks)
}

// Explain says which backend a request would get, and why.
func (c *Client) Explain(ctx context.Context, what ExplainRequest) (Explanation, error) {
	return post[Explanation](ctx, c, what, "explain")
}

// Decisions returns recent requests, the newest first; limit 0 leaves their number to the server.
func (c *Client) Decisions(ctx context.Context, limit int) (Decisions, error) {
	return ask[Decisions](ctx, c, request{method: http.MethodGet, path: []string{"decisions"}, query: limited(limit)})
}

// Audit returns a page of the changes of all documents.
func (c *Client) Audit(ctx context.Context, page HistoryPage) (History, error) {
	return ask[History](ctx, c, request{method: http.MethodGet, path: []string{"audit"}, query: page.query()})
}

// Fleet returns what the router serves by, and the state of its backends.
func (c *Client) Fleet(ctx context.Context) (Fleet, error) {
	return ask[Fleet](ctx, c, request{method: http.MethodGet, path: []string{"fleet"}})
}

const (
	jsonType = "application/json"
	yamlType = "application/yaml" // which JSON is, too
)

func limited(limit int) url.Values {
	if limit == 0 {
		return nil
	}
	return url.Values{"limit": {strconv.Itoa(limit)}}
}

func ask[T any](ctx context.Context, c *Client, r request) (T, error) {
	var answer T
	err := c.call(ctx, r, &answer)
	return answer, err
}

func post[T any](ctx context.Context, c *Client, body any, path ...string) (T, error) {
	return send[T](ctx, c, http.MethodPost, body, path...)
}

func send[T any](ctx context.Context, c *Client, method string, body any, path ...string) (T, error) {
	content, err := json.Marshal(body)
	if err != nil {
		var none T
		return none, fmt.Errorf("write the request: %w", err)
	}
	return ask[T](ctx, c, request{method: method, path: path, kind: jsonType, body: content})
}
