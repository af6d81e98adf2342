"""What a stub gains by being a fork: its code imported, rehearsed and packed before, opened after."""
