package memnet

import "time"

// send puts something on the line. mu is held.
func (p *pipe) send(k packet) {
	if p.line == (Line{}) && len(p.onWay) == 0 {
		p.arrive(k)
		return
	}
	k.data = append([]byte(nil), k.data...)
	k.due = time.Now().Add(p.line.Delay)
	if n := len(p.onWay); n > 0 && k.due.Before(p.onWay[n-1].due) { // in its order
		k.due = p.onWay[n-1].due
	}
	p.flying += len(k.data)
	p.onWay = append(p.onWay, k)
	p.land()
}

// arrive shows something to the reader. mu is held.
func (p *pipe) arrive(k packet) {
	switch {
	case k.reset:
		p.broken, p.buf = true, nil
	case k.last:
		p.ended = true
	case !p.unread:
		p.buf = append(p.buf, k.data...)
	}
	p.changed.Broadcast()
}

// land lets arrive what is due, and sets the timer for the rest. mu is held.
func (p *pipe) land() {
	if p.wakeUp != nil {
		p.wakeUp.Stop()
		p.wakeUp = nil
	}
	if p.line.Cut {
		return
	}
	now := time.Now()
	for len(p.onWay) > 0 && !p.onWay[0].due.After(now) {
		k := p.onWay[0]
		p.onWay = p.onWay[1:]
		p.flying -= len(k.data)
		p.arrive(k)
	}
	if len(p.onWay) == 0 {
		p.onWay = nil
		return
	}
	p.wakeUp = time.AfterFunc(p.onWay[0].due.Sub(now), func() {
		p.mu.Lock()
		defer p.mu.Unlock()
		p.land()
	})
}

func (p *pipe) setLine(l Line) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.line = l
	p.land()
}

// hangUp is a reset that has to pass the line.
func (p *pipe) hangUp() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.closed = true
	p.send(packet{reset: true})
	p.writeBy.stop()
	p.changed.Broadcast()
}
