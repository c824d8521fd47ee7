from .paper import RECIPES as RECIPES
from .paper import get as get
from .recipe import Recipe as Recipe
