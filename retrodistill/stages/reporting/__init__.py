"""What people read: findings as lines and JSON."""
