"""Who belongs where: filters, their trees, and membership kept exact by record and by timer."""
