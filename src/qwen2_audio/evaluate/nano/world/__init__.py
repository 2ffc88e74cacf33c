"""What people say in nano's world, and what nano answers. Text only; no sound is made here."""
