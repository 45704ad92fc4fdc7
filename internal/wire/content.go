package wire

// content takes one value of any kind and looks for URLs that a backend would have to fetch: texts under a name such as url or
// image_url, at any depth, that are no data: URLs. It looks at each of two members of the same name, as nobody knows which one a
// backend reads. link says that the value itself stands under such a name.
func (s *scan) content(link bool) {
	if s.flaw != sound {
		return
	}
	switch c := s.peek(); c {
	case '"':
		start := s.i
		if raw, _ := s.str(); link && s.flaw == sound && !isData(raw) {
			s.req.remote = start
		}
	case '{':
		for more := s.begin('{'); more; more = s.more('{') { // As deep as lexer.begin allows.
			key, escaped := s.key()
			s.content(isLink(key, escaped))
		}
	case '[':
		for more := s.begin('['); more; more = s.more('[') {
			if c := s.peek(); c == '-' || '0' <= c && c <= '9' {
				s.i = vector(s.b, s.i)
			}
			s.content(link)
		}
	default:
		s.scalar(c)
	}
}

// isLink reports whether a member's name is that of a URL: url, or what ends in _url, in any case.
func isLink(key []byte, escaped bool) bool {
	if escaped {
		return isEscapedLink(key)
	}
	n := len(key)
	if n < 3 || key[n-1]|0x20 != 'l' || key[n-2]|0x20 != 'r' || key[n-3]|0x20 != 'u' {
		return false
	}
	return n == 3 || key[n-4] == '_'
}

func isEscapedLink(key []byte) bool {
	var room [maxFolded]byte
	text, fits := unescape(room[:0], key)
	return fits && isLink(text, false)
}

// isData reports whether a string, as it is spelled, is a data: URL, which carries its content with it. It reads it as a URL parser does
// (WHATWG URL, section 4.4): what stands before the scheme is dropped up to the space, tabs and line breaks are dropped
// everywhere, and the scheme may be in any case. More than some fifty bytes of that before the scheme are taken for no data: URL.
func isData(raw []byte) bool {
	const scheme = "data:"
	if len(raw) >= len(scheme) && string(raw[:len(scheme)]) == scheme {
		return true // Nearly all are spelled like this.
	}
	var room [64]byte
	text, _ := unescape(room[:0], raw)
	matched := 0
	for _, c := range text {
		switch {
		case c == '\t' || c == '\n' || c == '\r' || c <= ' ' && matched == 0:
			continue
		case 'A' <= c && c <= 'Z':
			c |= 0x20
		}
		if c != scheme[matched] {
			return false
		}
		if matched++; matched == len(scheme) {
			return true
		}
	}
	return false
}

// template notes a chat template that the client sent.
func (s *scan) template() {
	if c := s.peek(); c != 'n' {
		s.req.template = s.i
	}
	s.skip()
}

// templateArgs notes the client's arguments for the chat template, and a template among them: some engines let that replace their own.
func (s *scan) templateArgs() {
	c := s.peek()
	if c != 'n' {
		s.req.templateArgs = s.i
	}
	if c != '{' {
		s.skip()
		return
	}
	for more := s.begin('{'); more; more = s.more('{') {
		key, escaped := s.key()
		if s.flaw != sound {
			return
		}
		if id, _ := resolve(key, escaped, topLevel); id == nameChatTemplate {
			s.template()
			continue
		}
		s.skip()
	}
}
