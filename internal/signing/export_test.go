package signing

import "context"

// ApplySteps is Apply by a program that is killed after the first n steps.
func (p *Planned) ApplySteps(ctx context.Context, n int) error { return p.apply(ctx, n) }

// Steps is how many steps Apply has.
func (p *Planned) Steps() int { return len(p.steps()) }
